"""Hypercorn's HTTP/1.1, with limits on a head, and answers that say what was wrong.

``server/http2.py`` picks it for a connection, nobody else. Pinned to Hypercorn 0.18: what is
overridden here is not its public interface.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

import h11
from hypercorn.events import Closed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol
from typing_extensions import override

from broadcasterd.api.problems import PROBLEM_TYPE, problem_document
from broadcasterd.errors import Problem
from broadcasterd.server.headers import RawHeaders, secure

PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""What h11 takes for a head of HTTP/2's preface (RFC 9113 §3.4)."""

_DETAILS = {
    HTTPStatus.BAD_REQUEST: "this is not HTTP/1.1",
    HTTPStatus.REQUEST_TIMEOUT: "the head of the request took too long (limits.head_timeout)",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        "the head of the request has too many bytes (limits.max_head_bytes)"
    ),
}


class Http1(H11Protocol):
    """One connection, one request after the other."""

    @property
    def has_begun_a_head(self) -> bool:
        """Whether part of a request's head is there."""
        return bool(self.connection.trailing_data[0])

    async def give_up(self) -> None:
        """Say that the next head took too long, if one was begun."""
        if self.has_begun_a_head:
            await self._send_error_response(HTTPStatus.REQUEST_TIMEOUT)

    @override
    async def stream_send(self, event: StreamEvent) -> None:
        """Send what the application says."""
        if isinstance(event, Response):
            secure(event.headers)
        await super().stream_send(event)

    @override
    async def _check_protocol(self, request: h11.Request) -> None:
        """Give the connection to HTTP/2 if the client began with its preface.

        Upstream also upgrades to h2c (RFC 9113 §3.1 took that back) and to WebSocket (there is none
        here), and fails where what a client sends with that is malformed. Here ``Upgrade`` is
        ignored, as it may be (RFC 9110 §7.8).
        """
        if (request.method, request.target, request.http_version) == (b"PRI", b"*", b"2.0"):
            raise H2ProtocolAssumedError(PREFACE + self.connection.trailing_data[0])

    @override
    async def _create_stream(self, request: h11.Request) -> None:
        status = _refusal(request, self.config.h11_max_incomplete_size)
        if status is None:
            await super()._create_stream(_without_upgrade(request))
        else:
            await self._send_error_response(status, request.method)
            await self.send(Closed())

    @override
    async def _send_error_response(self, status_code: int, method: bytes = b"GET") -> None:
        status = HTTPStatus(status_code)
        body = problem_document(Problem(status, _DETAILS.get(status, status.phrase)))
        headers: RawHeaders = [
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        secure(headers)
        await self._send_h11_event(h11.Response(headers=headers, status_code=status_code))
        if method != b"HEAD":
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


def _refusal(request: h11.Request, max_head_bytes: int) -> HTTPStatus | None:
    """Return how a request is answered that h11 took, but that is not for the application."""
    if _head_bytes(request) > max_head_bytes:
        # One that came in few pieces was never incomplete, and so not refused by h11.
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version == b"1.0"
    ):
        # A proxy may see another end of the body than h11 does: request smuggling (RFC 9112 §6.1).
        return HTTPStatus.BAD_REQUEST
    if not is_target(request.target):
        return HTTPStatus.BAD_REQUEST
    if not request.http_version.startswith(b"1."):
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    return None


def is_target(target: bytes) -> bool:
    """Whether it is a path, a URL, or ``*`` (RFC 9112 §3.2)."""
    if target.startswith(b"/") or target == b"*":
        return True
    try:
        return urlsplit(target).scheme in {b"http", b"https"}
    except ValueError:
        return False


def _without_upgrade(request: h11.Request) -> h11.Request:
    headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
    if len(headers) == len(request.headers):
        return request
    return h11.Request(
        method=request.method,
        headers=headers,
        target=request.target,
        http_version=request.http_version,
    )


def _head_bytes(request: h11.Request) -> int:
    """Return the bytes of a head, but for spaces that mean nothing."""
    headers: Iterable[tuple[bytes, bytes]] = request.headers
    line = len(request.method) + len(request.target) + len("  HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + len(": \r\n") for name, value in headers) + 2
