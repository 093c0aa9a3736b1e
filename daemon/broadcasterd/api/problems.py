"""The one place that makes responses of errors: RFC 9457 ``application/problem+json``."""

from __future__ import annotations

import msgspec
import structlog
from quart import Response
from werkzeug.exceptions import HTTPException

from broadcasterd.errors import Problem

log = structlog.stdlib.get_logger(__name__)

_DETAILS = {
    404: "there is nothing at this path",
    405: "this path does not take this method: see the Allow header",
}


PROBLEM_TYPE = "application/problem+json"


def problem_document(problem: Problem) -> bytes:
    """Return a problem as JSON."""
    document = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        **problem.extra,
    }
    return msgspec.json.encode(document)


def problem_response(problem: Problem) -> Response:
    """Return a problem as a response."""
    return Response(
        problem_document(problem),
        problem.status,
        {**problem.headers, "Cache-Control": "no-store"},
        content_type=PROBLEM_TYPE,
    )


def from_http_exception(error: HTTPException) -> Problem:
    """Translate what the router raises."""
    status = error.code or 500
    allow = {name: value for name, value in error.get_headers() if name == "Allow"}
    return Problem(status, _DETAILS.get(status, error.name), headers=allow)


def from_crash(error: Exception) -> Problem:
    """Record an error that nobody foresaw; its text is for the log, never for a stranger."""
    log.error("a request failed", exc_info=error)
    return Problem(500, "the daemon failed to serve this request; its log says why")
