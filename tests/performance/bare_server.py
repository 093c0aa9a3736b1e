"""The floor: one epoll loop that writes each event to each socket, and nothing else.

What this costs, the kernel and the interpreter ask of every Python server on the machine at hand;
the figures of the others mean little without it. It believes every request, so it must face nobody
but the load generator.
"""

import json
import select
import socket
from collections.abc import Callable

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
FIRST_BYTES = b"retry: 3000\n: stream\n"


def chunk(body: bytes) -> bytes:
    """Frame one HTTP/1.1 chunk."""
    return b"%x\r\n%b\r\n" % (len(body), body)


class BareServer:
    """Connections by descriptor, subscribers by path."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.epoll = select.epoll()
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)
        self.connections: dict[int, socket.socket] = {}
        self.subscribers: dict[bytes, dict[int, socket.socket]] = {}
        self.last_id = 0

    def run(self, on_ready: Callable[[int], None]) -> None:
        """Serve until the process is ended."""
        on_ready(self.listener.getsockname()[1])
        while True:
            for fd, _ in self.epoll.poll():
                if fd == self.listener.fileno():
                    sock, _ = self.listener.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.connections[sock.fileno()] = sock
                    self.epoll.register(sock.fileno(), select.EPOLLIN)
                else:
                    self._serve(fd)

    def _serve(self, fd: int) -> None:
        sock = self.connections[fd]
        data = sock.recv(65536)
        if not data:
            del self.connections[fd]
            for subscribers in self.subscribers.values():
                subscribers.pop(fd, None)
            sock.close()
            return
        head, _, body = data.partition(b"\r\n\r\n")
        method, path, _ = head.split(b" ", 2)
        if method == b"GET":
            sock.send(HEAD + chunk(FIRST_BYTES))
            self.subscribers.setdefault(path, {})[fd] = sock
        else:
            self.last_id += 1
            text = json.loads(body)["data"]
            frame = chunk(f"id: {self.last_id}\ndata: {text}\n\n".encode())
            for subscriber in self.subscribers.get(path, {}).values():
                subscriber.send(frame)
            sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
