"""Errors that have an answer: each carries the HTTP status and the words for the client.

All of them are a :class:`Problem` (RFC 9457). Any package raises them, and
``api/problems.py`` is the one place that makes answers of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

from broadcasterd.figures.counts import Cause


class Problem(Exception):  # noqa: N818 (RFC 9457's word for it)
    """A request that cannot be served, and why.

    Args:
        status: the HTTP status code.
        detail: one sentence for a person, naming what was wrong and what was expected. It
            never holds event data or a token.
        headers: response headers to add (``Allow``, ``Retry-After``).
        extra: members to add to the problem document.

    Attributes:
        cause: what it is counted as, where it is no fault of the request.

    """

    cause: Cause | None = None

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    @property
    def title(self) -> str:
        """The status's standard phrase."""
        return HTTPStatus(self.status).phrase


class BadRequest(Problem):
    """400: the request does not have the form that it must have."""

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, detail, extra=extra)


class Denied(Problem):
    """401, 403 or 421: there is no token, or none that allows this."""

    cause = Cause.TOKEN


class InvalidEvent(Problem):
    """422 (or 400 for a forbidden character): well-formed, but not an event."""

    def __init__(self, detail: str, *, status: int = HTTPStatus.UNPROCESSABLE_ENTITY) -> None:
        super().__init__(status, detail)


class TooLarge(Problem):
    """413: more bytes than a setting allows."""

    cause = Cause.LIMITS

    def __init__(self, detail: str) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


class NoSuchSession(Problem):
    """404: no session of that name is open."""

    def __init__(self, name: str) -> None:
        super().__init__(HTTPStatus.NOT_FOUND, f"no open session is named {name!r}")


class SessionEnded(Problem):
    """409: the session ended while this request was publishing to it."""

    def __init__(self, name: str) -> None:
        super().__init__(HTTPStatus.CONFLICT, f"session {name!r} was ended meanwhile")


class TooSlow(Problem):
    """408: the request took longer than a setting allows."""

    cause = Cause.LIMITS

    def __init__(self, detail: str) -> None:
        super().__init__(HTTPStatus.REQUEST_TIMEOUT, detail)


MAX_RETRY_AFTER_S = 3600
"""Whoever would have to wait for longer is told so again after an hour."""


def _retry_after(seconds: float) -> dict[str, str]:
    """Return the field: whole seconds, rounded up, from 1 to an hour, whatever was computed."""
    return {"Retry-After": str(math.ceil(max(1.0, min(seconds, MAX_RETRY_AFTER_S))))}


class TooMany(Problem):
    """429 with ``Retry-After``: more than one client or subject may have."""

    cause = Cause.RATE

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(HTTPStatus.TOO_MANY_REQUESTS, detail, headers=_retry_after(retry_after))


class Unavailable(Problem):
    """503 with ``Retry-After``: a bad moment, not a bad request."""

    def __init__(
        self, detail: str, *, retry_after: float, cause: Cause | None = Cause.LIMITS
    ) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=_retry_after(retry_after))
        self.cause = cause


RETRY_AFTER_S = 5
"""Seconds after which a client may come back that found no room."""

RESTART_S = 1
"""The same of a daemon that drains: the next one is there, or the socket waits for it."""

PRESSURE_RETRY_AFTER_S = 6
"""The wait in seconds for a publisher: the breaker does not close within less."""


class Draining(Unavailable):
    """503: the daemon drains."""

    def __init__(self) -> None:
        super().__init__("the daemon is restarting", retry_after=RESTART_S, cause=Cause.DRAINING)


class ShortOfMemory(Unavailable):
    """503: the breaker is open, and a publisher comes."""

    def __init__(self) -> None:
        super().__init__(
            "the daemon is short of memory",
            retry_after=PRESSURE_RETRY_AFTER_S,
            cause=Cause.BREAKER,
        )


class UsedUp(TooMany):
    """429: a client or a subject has used up its quota; ``setting`` says which."""

    cause = Cause.LIMITS

    def __init__(self, setting: str) -> None:
        detail = f"no more of these for you now (limits.{setting})"
        super().__init__(detail, retry_after=RETRY_AFTER_S)
