"""A receiver of webhooks: it takes what it is sent, or fails, or hangs, as a test says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import trio

SOON_S = 20.0
"""How long a notice may take on a loaded machine, beside what the test itself waits for."""


@dataclass(frozen=True, slots=True)
class Received:
    """A request: its path, its header fields by their names in lower case, and its body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def news(self) -> dict[str, Any]:
        """The notice."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed_with(self, key: bytes) -> bool:
        """Whether the signature is that of Standard Webhooks, computed here."""
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode()
        digest = hmac.new(key, signed + self.body, hashlib.sha256).digest()
        return self.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


@dataclass(slots=True)
class Receiver:
    """A receiver.

    Attributes:
        url: where it is.
        outcomes: what it does with the next requests, in turn: a status, or nothing at all; later
            ones it takes.
        received: all that came, in order, answered or not.

    """

    url: str
    outcomes: list[HTTPStatus | None] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)

    async def wait_for(self, count: int) -> list[Received]:
        """Wait until so many requests have come; return all."""
        with trio.fail_after(SOON_S):
            while len(self.received) < count:
                await self._news.wait()
        return self.received

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, of one request."""
        request = b""
        while b"\r\n\r\n" not in request:
            request += await self._more(stream)
        head, _, body = request.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
        while len(body) < int(headers["content-length"]):
            body += await self._more(stream)
        outcome = self.outcomes.pop(0) if self.outcomes else HTTPStatus.NO_CONTENT
        self.received.append(Received(line.split()[1], headers, body))
        self._news.set()
        self._news = trio.Event()
        if outcome is None:
            await stream.receive_some(1)  # until the other side has enough
        else:
            answer = f"HTTP/1.1 {outcome} {outcome.phrase}\r\nContent-Length: 0\r\n\r\n"
            await stream.send_all(answer.encode())

    @staticmethod
    async def _more(stream: trio.abc.Stream) -> bytes:
        received = bytes(await stream.receive_some(65536))
        if not received:
            raise EOFError
        return received


@asynccontextmanager
async def receiving(
    *outcomes: HTTPStatus | None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Run a receiver on a port of its own, which does these things first."""
    async with trio.open_nursery() as nursery:
        scheme = "http" if tls is None else "https"
        receiver = Receiver("", [*outcomes])

        async def serve(stream: trio.SocketStream) -> None:
            over: trio.abc.Stream = stream
            if tls is not None:
                over = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
            async with over:
                try:
                    await receiver.serve(over)
                except (EOFError, trio.BrokenResourceError):
                    return  # it did not come to a request, or did not wait for the answer

        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        receiver.url = f"{scheme}://127.0.0.1:{port}/hooks/s3cret?key=s3cret"
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield receiver
        nursery.cancel_scope.cancel()
