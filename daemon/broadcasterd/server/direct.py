"""Requests that are served without a framework: those to publish and to listen, on HTTP/1.

All others, and these where their path is not written in the plainest way, go to the application:
it answers the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from broadcasterd.api import live
from broadcasterd.api.answer import PIECE_BYTES, Answer, LongAnswer, Stream
from broadcasterd.api.bodies import ClientDisconnected
from broadcasterd.api.cors import shared_with
from broadcasterd.api.problems import problem_answer
from broadcasterd.api.request import Head, parse_query
from broadcasterd.api.routes import ROUTES, Api, Call, Route
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.broadcast.unchunked_subscriber import UnchunkedSubscriber
from broadcasterd.core.session_name import NAME_PATTERN
from broadcasterd.errors import Problem
from broadcasterd.server.asgi import attach
from broadcasterd.server.headers import RawHeaders
from broadcasterd.server.http1 import Exchange
from broadcasterd.server.requests import RequestHead
from broadcasterd.server.responses import encode_head

AnyAnswer = Answer | LongAnswer | Stream

_PATHS = {"/v1/sessions/{session}/events", "/agent_network_sse/{session}", live.PATH}
_ROUTES: dict[str, list[tuple[re.Pattern[str], Route]]] = defaultdict(list)
for _route in ROUTES:
    if _route.path in _PATHS:
        _pattern = re.compile(_route.path.replace("{session}", f"(?P<session>{NAME_PATTERN})"))
        _ROUTES[_route.method].append((_pattern, _route))


class Found(msgspec.Struct, frozen=True, gc=False):
    """A route, and the parts of a target that has it."""

    route: Route
    path: str
    parameters: Mapping[str, str]
    query: str


def find(head: RequestHead) -> Found | None:
    """Return the route of a request that is served here; ``None`` where it is not."""
    path, _, query = head.target.partition("?")
    for pattern, route in _ROUTES.get(head.method, ()):
        if found := pattern.fullmatch(path):
            return Found(route, path, found.groupdict(), query)
    return None


async def respond(
    api: Api, found: Found, exchange: Exchange, peer: str, answer: AnyAnswer | None = None
) -> None:
    """Answer a request, or make a stream of its connection; ``answer`` may be known already.

    Raises:
        ClientDisconnected: the rest of the request will never come.

    """
    if answer is None:
        try:
            call = _call(found, exchange, peer)
        except Problem as problem:
            answer = problem_answer(problem)
        else:
            answer = await api.answer(found.route, call)
    if exchange.was_cut_short:
        raise ClientDisconnected
    if isinstance(answer, Stream):
        begin(api, answer, exchange, peer)
    elif isinstance(answer, LongAnswer):
        exchange.connection.stream.hold(PIECE_BYTES)  # beside the bytes that are being sent
        await exchange.begin(answer.status, _fields(api, answer, exchange), b"")
        for piece in answer.pieces:
            await exchange.go_on(piece, more=True)
        await exchange.go_on(b"", more=False)
        exchange.connection.stream.hold(-PIECE_BYTES)
    else:
        await exchange.answer(answer.status, _fields(api, answer, exchange), answer.body)


def answer_at_once(api: Api, found: Found, exchange: Exchange, peer: str) -> Answer | Stream | None:
    """Return the answer to a request to listen; ``None`` where it may have to be waited for."""
    try:
        call = _call(found, exchange, peer)
    except Problem as problem:
        return problem_answer(problem)
    return api.answer_at_once(found.route, call)


def _call(found: Found, exchange: Exchange, peer: str) -> Call:
    """Return a request as the handlers of routes take it.

    Raises:
        Problem: its query is malformed.

    """
    head = exchange.head
    fields = parse_query(found.query.encode()) if found.query else ()
    return Call(
        Head(head.method, found.path, fields, head.headers, peer, head.http_version),
        exchange,
        found.parameters,
        exchange.connection.until_gone,
    )


def begin(api: Api, stream: Stream, exchange: Exchange, peer: str) -> None:
    """Give the connection's socket to a subscriber, whose first write has the head, too."""
    admission = stream.admission
    fields = _fields(api, stream, exchange)
    kind: type[SocketSubscriber] = UnchunkedSubscriber
    if exchange.head.http_version == "1.1":
        kind = SocketSubscriber
        fields.append((b"transfer-encoding", b"chunked"))
    attach(
        admission,
        kind(
            admission.session,
            exchange.connection.detach(),
            api.hub.poller,
            stream_id=admission.stream_id,
            peer=peer,
            position=admission.position,
            subject=admission.subject,
            expires_at=admission.expires_at,
            head=encode_head(stream.status, fields, closes=True),
            opening=admission.opening,
        ),
    )


def _fields(api: Api, answer: AnyAnswer, exchange: Exchange) -> RawHeaders:
    """Return an answer's fields as they are sent."""
    headers, server = answer.headers, api.settings.server
    if server.cors_origins:
        head = exchange.head
        headers = {**headers, **shared_with(head.method, head.headers, server)}
    return [*_encode(tuple(headers.items()))]


@lru_cache(maxsize=256)  # most are always the same
def _encode(fields: tuple[tuple[str, str], ...]) -> RawHeaders:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
