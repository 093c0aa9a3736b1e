"""The one place that makes answers of errors: RFC 9457 ``application/problem+json``."""

from __future__ import annotations

import msgspec
import structlog

from broadcasterd.api.answer import Answer
from broadcasterd.errors import Problem

log = structlog.stdlib.get_logger(__name__)

FAILED = "the daemon failed to serve this request; its log says why"

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


def problem_answer(problem: Problem) -> Answer:
    """Return a problem as an answer."""
    headers = {"Content-Type": PROBLEM_TYPE, **problem.headers, "Cache-Control": "no-store"}
    return Answer(problem.status, headers, problem_document(problem))


def from_crash(error: Exception) -> Problem:
    """Record an error that nobody foresaw; its text is for the log, never for a stranger."""
    log.error("a request failed", exc_info=error)
    return Problem(500, FAILED)
