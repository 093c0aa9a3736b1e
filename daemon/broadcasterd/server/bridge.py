"""A request to the application and its response back (ASGI 3), on a connection of HTTP/1.1."""

from __future__ import annotations

from urllib.parse import unquote

import trio
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveEvent,
    ASGISendEvent,
    HTTPDisconnectEvent,
    HTTPRequestEvent,
    HTTPResponseStartEvent,
    HTTPScope,
)

from broadcasterd.api.bodies import ClientDisconnected
from broadcasterd.api.problems import FAILED
from broadcasterd.errors import Problem
from broadcasterd.memory.holdings import FRAMEWORK_BYTES
from broadcasterd.server.http1 import Exchange, Watch
from broadcasterd.server.requests import RequestHead

Address = tuple[str, int]


class Bridge:
    """One exchange with the application."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._is_read = self._has_ended = False
        self._gone = trio.Event()
        self._watch: Watch | None = None
        self._problem: Problem | ClientDisconnected | None = None
        self._start: HTTPResponseStartEvent | None = None

    async def run(self, app: ASGIFramework, scope: HTTPScope) -> None:
        """Have the application answer.

        Raises:
            ClientDisconnected: it was not waited for.
            Problem: the body was malformed, or the application failed: the connection is to end.

        """
        stream = self._exchange.connection.stream
        stream.hold(FRAMEWORK_BYTES)
        try:
            await app(scope, self._receive, self._send)
        finally:
            stream.hold(-FRAMEWORK_BYTES)
            if self._watch is not None:
                self._watch.end()
        if isinstance(self._problem, ClientDisconnected):
            raise self._problem
        if not self._exchange.has_begun:
            raise self._problem or Problem(500, FAILED)
        if not self._has_ended:
            self._exchange.connection.abort()

    async def _receive(self) -> ASGIReceiveEvent:
        if not self._is_read and self._problem is None:
            try:
                piece = await anext(self._exchange, b"")
            except (Problem, ClientDisconnected) as problem:
                self._problem = problem
                return HTTPDisconnectEvent(type="http.disconnect")
            self._is_read = not piece
            return HTTPRequestEvent(type="http.request", body=piece, more_body=bool(piece))
        await self._gone.wait()
        return HTTPDisconnectEvent(type="http.disconnect")

    async def _send(self, message: ASGISendEvent) -> None:
        try:
            await self._send_on(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._problem = ClientDisconnected()
            self._gone.set()

    async def _send_on(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        assert message["type"] == "http.response.body"  # noqa: S101 (no other was offered)
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        self._has_ended = not more
        stream = self._exchange.connection.stream
        stream.hold(len(body))  # beside the bytes that are being sent
        try:
            await self._send_body(body, more=more)
        finally:
            stream.hold(-len(body))

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self._start is None:
            await self._exchange.go_on(body, more=more)
            return
        status, fields = self._start["status"], [*self._start["headers"]]
        self._start = None
        if more:
            # It may have no end. Before, a client may say that it will send no more, and wait.
            self._watch = self._exchange.connection.watch(self._gone.set)
            await self._exchange.begin(status, fields, body)
        else:
            await self._exchange.answer(status, fields, body)


def scope_of(head: RequestHead, *, scheme: str, client: Address, server: Address) -> HTTPScope:
    """Return what an application is told of a request."""
    path, _, query = head.target.partition("?")
    return {
        "type": "http",
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "http_version": head.http_version,
        "method": head.method,
        "scheme": scheme,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(n.encode(), v.encode("latin-1")) for n, v in head.headers.items()],
        "client": client,
        "server": server,
        "state": {},  # type: ignore[typeddict-item] # its keys are the application's
        "extensions": {},
    }
