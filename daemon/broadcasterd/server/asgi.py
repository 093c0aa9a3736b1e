"""Quart-Trio's side of a request, corrected where streams and long bodies need it.

Pinned to quart-trio 0.12: the methods overridden here are not its public interface. Tests of
the facts' letters in ``tests/integration/test_stack_facts.py`` hold what is promised.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from math import inf
from string import ascii_letters, digits
from types import TracebackType
from typing import NoReturn, Self, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart.routing import QuartRule
from quart.wrappers.base import BaseRequestWebsocket
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest
from typing_extensions import override
from werkzeug.routing import MapAdapter

from broadcasterd.api.subscribe import Admission
from broadcasterd.broadcast.response_subscriber import ResponseSubscriber
from broadcasterd.broadcast.subscriber import Subscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.server.body import RequestBody

_ENCODED = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED = {f"%{ord(char):02X}": char for char in f"{ascii_letters}{digits}-._~"}

END_TIMEOUT_S = 20.0
"""How long a reader may take to ask for the last of a response. On HTTP/2 it need never ask,
and what waits is a task and a buffer."""


class Request(TrioRequest):
    """A request whose body holds its sender back."""

    body: RequestBody  # type: ignore[assignment] # not a Body: Quart's own collects all it gets
    body_class = RequestBody  # type: ignore[assignment]


class ASGIConnection(TrioASGIHTTPConnection):
    """One request and its response.

    Upstream, the end of a response looks like a disconnect and cancels what is closing or
    recycling the connection just then (fact B); and a body is collected without bounds.
    """

    _finishing = False

    @override
    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Run the handler beside the reader of the request's messages."""

        async def send_noting_the_end(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._finishing = True
                with trio.move_on_after(END_TIMEOUT_S):
                    await send(message)
            else:
                await send(message)

        async with trio.open_nursery() as nursery:
            self.scope["state"]["response"] = nursery.cancel_scope
            request = cast(Request, self._create_request_from_scope(send))
            nursery.start_soon(self._fill_body, nursery, request, receive)
            await self._answer(request, send_noting_the_end)
            nursery.cancel_scope.cancel()

    async def _fill_body(
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        """Fill the body; cancel the handler when the client goes, unless the body tells it."""
        while (message := await receive())["type"] == "http.request":
            await request.body.put(message["body"], more=message["more_body"])
        request.body.cut_short()
        if not self._finishing and not request.body.is_being_read:
            nursery.cancel_scope.cancel()

    async def _answer(self, request: Request, send: ASGISendCallable) -> None:
        """Send what the handler answers, if the client is still there."""
        response = await self.app.handle_request(request)
        request.body.discard()
        if request.body.was_cut_short:
            return
        timeout = getattr(response, "timeout", ...)
        if timeout is ...:
            timeout = self.app.config["RESPONSE_TIMEOUT"]
        with trio.move_on_after(inf if timeout is None else timeout):
            await self._send_response(send, response)


class Rule(QuartRule):
    """A rule that requests are matched with, and nothing else.

    Upstream also compiles functions that build URLs of it, which nothing here does: that takes 8 ms
    for all routes, at each start of a daemon.
    """

    @override
    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        return _build_nothing


def _build_nothing(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError


class Application(QuartTrio):
    """Quart-Trio with the three classes above, which routes by the path as it was sent."""

    asgi_http_class = ASGIConnection
    request_class = Request
    url_rule_class = Rule  # type: ignore[assignment] # as it is upstream

    @override
    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Return what finds the route of a request.

        Upstream decodes the path first, so that ``%2F`` ends a segment (RFC 3986 §2.2), and takes
        host and query apart, which no route here depends on, and which fails for some of them.
        """
        if request is None:
            return super().create_url_adapter(None)
        path = plainest(request.scope["raw_path"].decode("ascii"))
        return self.url_map.bind("", default_method=request.method, path_info=path)


class StreamedBody(ResponseBody):
    """A response that a :class:`ResponseSubscriber` feeds: there is no socket to take over."""

    def __init__(self, admission: Admission, response: trio.CancelScope, peer: str) -> None:
        self._admission = admission
        self._response = response
        self._peer = peer
        self._subscriber: ResponseSubscriber  # from __aenter__ on: its place in the log is then

    @override
    async def __aenter__(self) -> Self:
        admission = self._admission
        self._subscriber = ResponseSubscriber(
            admission.session,
            self._response,
            stream_id=admission.stream_id,
            peer=self._peer,
            position=admission.position,
            subject=admission.subject,
            expires_at=admission.expires_at,
            opening=admission.opening,
        )
        attach(admission, self._subscriber)
        return self

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._subscriber.close(EndReason.CLIENT_GONE)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._subscriber.next_bytes()
        if piece is None:
            raise StopAsyncIteration
        return piece


def plainest(path: str) -> str:
    """Return a path in which only what is reserved is encoded (RFC 3986 §6.2.2.2)."""
    return _ENCODED.sub(lambda found: _UNRESERVED.get(found[0].upper(), found[0]), path)


def attach(admission: Admission, subscriber: Subscriber) -> None:
    """Begin a stream that was admitted."""
    try:
        admission.session.attach(subscriber)
    except Exception:
        subscriber.close(EndReason.CRASHED)  # nobody else knows of it, nor of its socket
        raise
