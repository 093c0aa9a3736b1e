"""The figures of a daemon: what `/stats`, `/health` and the listing of sessions say.

A figure that a daemon does not know (an older one, or a newer) is 0, or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar

import httpx
import msgspec

from broadcasterd.client.connection import (
    UNUSABLE,
    RequestFailed,
    Unavailable,
    cause,
    is_passing,
    quoted,
    refusal,
    shown,
)
from broadcasterd.client.exchange import Ask, Call, Credentials, ask

PAGE = 1000  # sessions: as many as a daemon lists at once

_TIMEOUT = httpx.Timeout(10.0)
_FINAL = (
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
    httpx.TooManyRedirects,
    *UNUSABLE,
)


class Quantiles(msgspec.Struct, frozen=True):
    """Durations of the last minute, in milliseconds."""

    count: int = 0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Latencies(msgspec.Struct, frozen=True):
    """Durations by what took them; of requests, by route."""

    publish: Quantiles = Quantiles()
    fan_out: Quantiles = Quantiles()
    loop_lag: Quantiles = Quantiles()
    requests: dict[str, Quantiles] = {}


class Trend(msgspec.Struct, frozen=True):
    """Where memory goes."""

    mb_per_minute: float = 0.0


class Memory(msgspec.Struct, frozen=True):
    """Memory, in MB, with the thresholds of the breaker and its state."""

    used_mb: float = 0.0
    accounted_mb: float = 0.0
    clients_mb: float = 0.0
    warning_mb: float = 0.0
    critical_mb: float = 0.0
    breaker: str = "off"
    trend: Trend = Trend()


class Change(msgspec.Struct, frozen=True):
    """A transition of the breaker, and when it was (ISO 8601)."""

    time: str = ""
    to: str = ""


class Breaker(msgspec.Struct, frozen=True):
    """The latest transitions, oldest first."""

    history: list[Change] = []


class Loop(msgspec.Struct, frozen=True):
    """The event loop's lag, and its long steps since the start."""

    lag_ms: float = 0.0
    max_lag_ms: float = 0.0
    long_steps: int = 0


class Performance(msgspec.Struct, frozen=True):
    """Rates by window (``10s``, ``1m``, ``10m``) and name, latencies, loop and memory."""

    rates: dict[str, dict[str, float]] = {}
    error_rate: dict[str, float] = {}
    latency_ms: Latencies = Latencies()
    loop: Loop = Loop()
    memory: Memory = Memory()
    breaker: Breaker = Breaker()


class Counters(msgspec.Struct, frozen=True):
    """Counts since the start, by reason, cause, boundary or kind."""

    streams_ended: dict[str, int] = {}
    refused: dict[str, int] = {}
    failures: dict[str, int] = {}
    log_records: dict[str, int] = {}


class Stats(msgspec.Struct, frozen=True):
    """The answer of ``/stats``; it is none of a daemon's without ``status`` and ``version``."""

    status: str
    version: str
    uptime_s: float = 0.0
    sessions: int = 0
    streams: int = 0
    connections: int = 0
    counters: Counters = Counters()
    performance: Performance = Performance()


class Health(msgspec.Struct, frozen=True):
    """The answer of ``/health``: a verdict, a few figures, and the alerts that are firing."""

    status: str
    alerts: list[str] = []
    version: str = ""
    uptime_s: float = 0.0
    sessions: int = 0
    subscribers: int = 0
    memory: Memory = Memory()


class SessionFigures(msgspec.Struct, frozen=True):
    """An open session; ages in seconds."""

    session: str
    subscribers: int = 0
    retained_events: int = 0
    retained_bytes: int = 0
    oldest_id: str | None = None
    last_id: str | None = None
    oldest_age_s: float | None = None
    age_s: float = 0.0
    idle_s: float = 0.0


class Page(msgspec.Struct, frozen=True):
    """Some of the open sessions, and the cursor of the next ones."""

    sessions: list[SessionFigures]
    next: str | None = None


_Document = TypeVar("_Document")


def get_stats(base: str, credentials: Credentials) -> Call[Stats]:
    """Return the answer of ``/stats``."""
    return _read((yield from _get(f"{base}/stats", credentials)), Stats)


def get_stats_as_json(base: str, credentials: Credentials) -> Call[str]:
    """Return it as it came."""
    response = yield from _get(f"{base}/stats", credentials)
    _read(response, Stats)
    return response.text


def get_health(base: str, credentials: Credentials) -> Call[Health]:
    """Return the answer of ``/health``, also of a daemon that says that it is unhealthy."""
    url = f"{base}/health"
    step, unhealthy = Ask(url=url, timeout=_TIMEOUT), HTTPStatus.SERVICE_UNAVAILABLE
    return _read((yield from _checked(step, credentials, HTTPStatus.OK, unhealthy)), Health)


def get_sessions(base: str, credentials: Credentials, cursor: str) -> Call[Page]:
    """Return the page of open sessions after a cursor."""
    url, query = f"{base}/v1/sessions", {"limit": str(PAGE), "cursor": cursor}
    return _read((yield from _get(url, credentials, query)), Page)


def end_session(base: str, session: str, credentials: Credentials) -> Call[None]:
    """End a session, where there is one."""
    url = f"{base}/v1/sessions/{quoted(session)}"
    step = Ask(method="DELETE", url=url, timeout=_TIMEOUT, follow_redirects=False)
    yield from _checked(step, credentials, HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND)


def _get(
    url: str, credentials: Credentials, query: Mapping[str, str] | None = None
) -> Call[httpx.Response]:
    step = Ask(url=url, params=query or {}, timeout=_TIMEOUT)
    return (yield from _checked(step, credentials, HTTPStatus.OK))


def _checked(step: Ask, credentials: Credentials, *good: HTTPStatus) -> Call[httpx.Response]:
    try:
        response = yield from ask(step, credentials)
    except _FINAL as error:
        raise RequestFailed(f"{shown(step.url)}: {cause(error, step.url)}") from error
    except httpx.TransportError as error:
        raise Unavailable(f"{shown(step.url)}: {cause(error, step.url)}") from error
    if response.status_code in good:
        return response
    failed = Unavailable if is_passing(response.status_code) else RequestFailed
    raise failed(refusal(response))


def _read(response: httpx.Response, kind: type[_Document]) -> _Document:
    """Read an answer.

    A gateway's page with the same status is none of a daemon's: the daemon is away.
    """
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if response.status_code != HTTPStatus.OK:
            raise Unavailable(refusal(response)) from error
        url = shown(str(response.request.url))
        raise RequestFailed(f"{url}: this is no answer of broadcasterd") from error
