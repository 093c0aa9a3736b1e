"""The three ways on which a stream reaches its reader, behind one client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from typing import Self

import trio

from tests.support.certificate import Certificate
from tests.support.following import Following
from tests.support.http1 import Answer, Http1
from tests.support.http2 import Http2
from tests.support.inprocess import Serving, serving


class Path(Enum):
    """How a response reaches its reader."""

    PLAIN = "HTTP/1.1"
    TLS = "HTTP/1.1 over TLS"
    HTTP2 = "HTTP/2 over TLS"

    @property
    def protocol(self) -> str:
        """The protocol that ALPN agrees on."""
        return "h2" if self is Path.HTTP2 else "http/1.1"


class Stalled:
    """A reader that stopped, and will not read on."""

    def __init__(self, until_gone: Callable[[], Awaitable[None]]) -> None:
        self.until_gone = until_gone
        """Wait until the server has ended its response, or given it up."""


class Clients:
    """Clients of one daemon on one path: HTTP/1.1 has a connection for each, HTTP/2 one in all."""

    def __init__(self, daemon: Serving, path: Path, certificate: Certificate) -> None:
        self._daemon = daemon
        self._path = path
        self._certificate = certificate
        self._open = AsyncExitStack()
        self._shared: Http2 | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def follow(
        self,
        target: str,
        headers: Mapping[str, str] | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> Following:
        """Subscribe, and wait for the opening of the stream."""
        if self._path is Path.HTTP2:
            return await (await self.http2()).follow(target, headers)
        return await (await self.http1(receive_buffer=receive_buffer)).follow(target, headers)

    async def stall(self, target: str) -> Stalled:
        """Subscribe, and read nothing."""
        if self._path is not Path.HTTP2:
            client = await self.http1(receive_buffer=4096)
            await client.ask("GET", target)
            return Stalled(client.over)
        shared = await self.http2()
        stream = await shared.ask("GET", target)
        shared.stalled.add(stream)
        return Stalled(lambda: shared.until(lambda: stream in shared.ended | set(shared.errors)))

    async def fetch(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[int, dict[str, object]]:
        """Make a request; return the status of the answer, and the JSON that it holds."""
        told = await self.answer(method, target, headers, body)
        return told.status, told.json()

    async def answer(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Make a request; return the whole answer."""
        if self._path is Path.HTTP2:
            client = await self.http2()
            stream = await client.ask(method, target, headers, body=body)
            status, told = await client.answer(stream)
            return Answer(status, client.headers[stream], told)
        async with await self.connect() as connection:
            http1 = Http1(connection)
            await http1.ask(method, target, headers, body)
            return await http1.answer()

    async def publish(self, target: str, *data: object) -> dict[str, object]:
        """Publish events with this data; return the answer."""
        body = json.dumps([{"data": item} for item in data]).encode()
        status, answer = await self.fetch(
            "POST", target, {"Content-Type": "application/json"}, body
        )

        assert 200 == status, answer
        return answer

    async def http1(self, *, receive_buffer: int | None = None) -> Http1:
        """Open another connection."""
        return Http1(await self.connect(receive_buffer=receive_buffer))

    async def http2(self) -> Http2:
        """Return the one connection."""
        if self._shared is None:
            self._shared = Http2(await self.connect())
            await self._shared.start()
        return self._shared

    async def connect(self, *, receive_buffer: int | None = None) -> trio.abc.Stream:
        """Open a connection of this path's kind; it is closed in the end."""
        socket = await self._daemon.connect(receive_buffer=receive_buffer)
        await self._open.enter_async_context(socket)
        if self._path is Path.PLAIN:
            return socket
        context = self._certificate.client_context(self._path.protocol)
        tls = trio.SSLStream(socket, context, server_hostname="127.0.0.1", https_compatible=True)
        await tls.do_handshake()

        assert self._path.protocol == tls.selected_alpn_protocol()
        return tls


@asynccontextmanager
async def serving_on(
    path: Path, certificate: Certificate, **sections: Mapping[str, object]
) -> AsyncIterator[tuple[Serving, Clients]]:
    """Run a daemon that serves on ``path``; see :func:`tests.support.inprocess.serving`."""
    secure = certificate if path in {Path.TLS, Path.HTTP2} else None
    async with (
        serving(certificate=secure, **sections) as daemon,
        Clients(daemon, path, certificate) as clients,
    ):
        yield daemon, clients
