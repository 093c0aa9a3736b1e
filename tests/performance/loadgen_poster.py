"""Posts one body over many connections for as long as told: what wrk does, where there is no wrk.

An interpreter takes some 20 µs for each request, so that a server in C is faster than this. CPU per
request is the server's all the same.
"""

import re
import select
import socket
import time
from dataclasses import dataclass
from itertools import cycle

from tests.performance.loadgen_publisher import STALL_S
from tests.performance.loadgen_subscriber import READ_BYTES, LoadError

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


@dataclass(slots=True)
class Connection:
    """One connection with a request on its way."""

    sock: socket.socket
    answer: bytes = b""

    @property
    def is_answered(self) -> bool:
        """Whether the whole answer is there."""
        head, end, body = self.answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        return bool(end) and length is not None and len(body) >= int(length[1])


class Poster:
    """Keeps ``connections`` requests on their way.

    Args:
        address: of the server.
        requests: are sent in turn, over and over.
        fresh: whether each goes over a connection of its own, which is closed after the answer.

    """

    def __init__(self, address: tuple[str, int], requests: list[bytes], *, fresh: bool) -> None:
        self.address = address
        self.requests = cycle(requests)
        self.fresh = fresh
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.answered = 0
        self.failures = 0

    def run(self, connections: int, seconds: float) -> float:
        """Post for so long; return the seconds that it took until the last answer."""
        started = time.monotonic()
        for _ in range(connections):
            self._send(self._connect())
        while self.connections:
            ready = self.epoll.poll(STALL_S)
            if not ready:
                raise LoadError(f"no publisher was answered for {STALL_S:.0f} s")
            is_over = time.monotonic() - started >= seconds
            for fd, _ in ready:
                self._receive(self.connections[fd], is_over=is_over)
        return time.monotonic() - started

    def _connect(self) -> Connection:
        sock = socket.create_connection(self.address, timeout=STALL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self.connections[sock.fileno()] = Connection(sock)
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def _send(self, connection: Connection) -> None:
        connection.answer = b""
        connection.sock.sendall(next(self.requests))

    def _receive(self, connection: Connection, *, is_over: bool) -> None:
        try:
            data = connection.sock.recv(READ_BYTES)
        except OSError:
            data = b""
        connection.answer += data
        if data and not connection.is_answered:
            return
        if data and connection.answer.startswith(b"HTTP/1.1 2"):
            self.answered += 1
        else:
            self.failures += 1
        is_kept = data and b"\r\nconnection: close" not in connection.answer.lower()
        if is_over or self.fresh or not is_kept:
            del self.connections[connection.sock.fileno()]
            connection.sock.close()
            if is_over:
                return
            connection = self._connect()
        self._send(connection)
