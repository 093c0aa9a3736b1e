"""A publisher of the load generator: one kept connection, one event at a time."""

import json
import re
import socket
import time

from tests.performance.loadgen_subscriber import READ_BYTES, LoadError

STALL_S = 30.0


class Publisher:
    """One keep-alive connection that posts events, one at a time.

    Args:
        host: where the server is.
        port: where it listens.
        text: whether the body of a POST is an event's text, and not JSON.
        authorization: a header line, or nothing.

    """

    def __init__(self, host: str, port: int, *, text: bool, authorization: str) -> None:
        self.sock = socket.create_connection((host, port), timeout=STALL_S)
        self.sock.settimeout(0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = host
        self.text = text
        self.authorization = authorization
        self.buffer = b""
        self.waiting = False  # an answer is due

    def send(self, session: str, sequence: int, pad: int) -> None:
        """Post one event; its text says which it is and when it left (CLOCK_MONOTONIC, ns)."""
        text = f"{sequence:08d} {time.monotonic_ns():019d} {'x' * pad}"
        body = text if self.text else json.dumps({"data": text})
        kind = "text/plain" if self.text else "application/json"
        head = (
            f"POST /v1/sessions/{session}/events HTTP/1.1\r\nHost: {self.host}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            f"{self.authorization}\r\n"
        )
        # A request fits an empty send buffer, and there is at most one on its way.
        self.sock.sendall((head + body).encode())
        self.waiting = True

    def receive(self) -> None:
        """Read towards the answer; `waiting` turns false when it is whole."""
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise LoadError("publisher: the server hung up")
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not head.startswith(b"HTTP/1.1 2") or length is None:
            raise LoadError(f"publisher: {head.decode('latin-1')!r} {rest[:200]!r}")
        if len(rest) >= int(length[1]):
            self.buffer = b""
            self.waiting = False
