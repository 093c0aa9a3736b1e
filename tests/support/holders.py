"""Clients that make a daemon hold memory for them: connections, requests and answers, and no more.

Each does as little as that takes, with sockets that block: the daemon is another process. Inside
the block all of them are there.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import h2.config
import h2.connection
import h2.settings

from tests.support.certificate import Certificate
from tests.support.daemon import Daemon

SMALL_BUFFER_BYTES = 4096
"""What the kernel takes in for a client that reads nothing: nearly all stays with the daemon."""

HALF_A_HEAD = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Filler: " + b"x" * 15_000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Held = list[socket.socket]


def request(path: str, *fields: str, version: str = "1.1") -> bytes:
    """Return a GET of HTTP/1."""
    lines = [f"GET {path} HTTP/{version}", "Host: 127.0.0.1", *fields, "", ""]
    return "\r\n".join(lines).encode()


def upload(session: str, kind: str, body: bytes, *fields: str) -> bytes:
    """Return a POST of a body that does not end."""
    lines = [
        f"POST /v1/sessions/{session}/events HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {kind}",
        *fields,
        "Transfer-Encoding: chunked",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + b"%x\r\n%b\r\n" % (len(body), body)


PAGE = ("Accept: application/json",)


@contextmanager
def holding(
    daemon: Daemon,
    data: bytes,
    count: int,
    *,
    answered: bool = False,
    certificate: Certificate | None = None,
) -> Iterator[Held]:
    """Hold so many connections, each of which has sent the same.

    Args:
        daemon: the server.
        data: sent by each.
        count: of the connections.
        answered: whether to wait for an answer, and read some of it.
        certificate: the daemon's, where it speaks TLS.

    """
    context = None if certificate is None else certificate.client_context()
    with ExitStack() as stack:
        held: Held = []
        for _ in range(count):
            sock = stack.enter_context(connect(daemon.port, context))
            if data:
                sock.sendall(data)
            held.append(sock)
        if answered:
            for sock in held:
                sock.settimeout(20)
                assert sock.recv(SMALL_BUFFER_BYTES)
        yield held


def connect(port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    """Return a connection that takes little at a time; over TLS, where there is a context."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    sock.connect(("127.0.0.1", port))
    if context is None:
        return sock
    return context.wrap_socket(sock, server_hostname="127.0.0.1")


@contextmanager
def half_handshakes(daemon: Daemon, count: int) -> Iterator[Held]:
    """Hold connections that began a TLS handshake, and were answered."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    hello = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    with holding(daemon, outgoing.read(), count, answered=True) as held:
        yield held


class Http2Holder:
    """A connection of HTTP/2 that asks, and reads nothing of what is answered.

    Args:
        sock: the connection.
        window: bytes that each answer may have.

    """

    def __init__(self, sock: socket.socket, *, window: int = 65_535) -> None:
        self.sock = sock
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={codes.INITIAL_WINDOW_SIZE: window, codes.ENABLE_PUSH: 0},
        )
        self._h2.initiate_connection()
        self.flush()

    def ask(self, path: str, *fields: tuple[str, str]) -> None:
        """Ask for something."""
        head = {":method": "GET", ":scheme": "http", ":authority": "127.0.0.1", ":path": path}
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, [*head.items(), *fields], end_stream=True)
        self.flush()

    def flush(self) -> None:
        """Send what there is to send."""
        self.sock.sendall(self._h2.data_to_send())


@contextmanager
def http2_holders(
    daemon: Daemon,
    count: int,
    path: str = "",
    *fields: tuple[str, str],
    streams: int = 0,
    window: int = 65_535,
) -> Iterator[list[Http2Holder]]:
    """Hold connections of HTTP/2 with so many requests each."""
    with ExitStack() as stack:
        holders = []
        for _ in range(count):
            sock = stack.enter_context(connect(daemon.port))
            holder = Http2Holder(sock, window=window)
            for _ in range(streams):
                holder.ask(path, *fields)
            holders.append(holder)
        yield holders


def fill(daemon: Daemon, session: str, *, events: int, size: int) -> None:
    """Publish a history."""
    with connect(daemon.port) as sock:
        body = json.dumps([{"data": "x" * size}] * events).encode()
        sock.sendall(
            f"POST /v1/sessions/{session}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Connection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        sock.sendall(body)
        assert b" 200 " in sock.recv(SMALL_BUFFER_BYTES)


def settled(figure: Callable[[], float], *, within: float = 10.0) -> float:
    """Return a figure that has stayed the same, but for one part in a hundred, at three looks."""
    deadline = time.monotonic() + within
    looks = [figure()]
    while time.monotonic() < deadline:
        time.sleep(0.2)
        looks = [*looks[-2:], figure()]
        if len(looks) == 3 and max(looks) - min(looks) <= max(looks) / 100:
            break
    return looks[-1]
