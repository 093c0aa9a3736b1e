"""The figures of a daemon: what `/stats`, `/health` and the listing of sessions say.

A figure that a daemon does not know (an older one, or a newer) is 0, or empty.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar

import httpx
import msgspec

from broadcasterd.client.connection import (
    UNUSABLE,
    RequestFailed,
    Unavailable,
    authorization,
    cause,
    connect_async,
    is_passing,
    refusal,
    shown,
)

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
    """What ``/health`` says beyond that: the names of the alerts that are firing."""

    status: str
    alerts: list[str] = []


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


class _Page(msgspec.Struct, frozen=True):
    sessions: list[SessionFigures]
    next: str | None = None


_Document = TypeVar("_Document")


class Figures:
    """Asks a daemon for its figures, in a Trio run; use it as a context manager.

    Args:
        url: where the daemon is.
        token: sent as a bearer token; it is to be an admin's.
        proxy: asked through, also for a daemon on loopback.

    Raises:
        RequestFailed: on entering, a proxy cannot be used; on asking, the daemon refuses.
        Unavailable: it cannot be reached, or is in trouble, which may pass.

    """

    def __init__(self, url: str, *, token: str | None = None, proxy: str | None = None) -> None:
        self._base = url.rstrip("/")
        self._client = connect_async(url, proxy, _TIMEOUT)
        self._client.headers.update(authorization(token))
        self._client.follow_redirects = True

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def stats(self) -> Stats:
        """Return the answer of ``/stats``."""
        return _read(await self._get("/stats"), Stats)

    async def stats_as_json(self) -> str:
        """Return it as it came."""
        response = await self._get("/stats")
        _read(response, Stats)
        return response.text

    async def health(self) -> Health:
        """Return the answer of ``/health``, also of a daemon that says that it is unhealthy."""
        return _read(await self._get("/health", HTTPStatus.SERVICE_UNAVAILABLE), Health)

    async def sessions(self) -> AsyncIterator[SessionFigures]:
        """Yield each open session, by name."""
        cursor = ""
        while True:
            response = await self._get("/v1/sessions", limit=str(PAGE), cursor=cursor)
            page = _read(response, _Page)
            for session in page.sessions:
                yield session
            if page.next is None:
                return
            cursor = page.next

    async def _get(
        self, path: str, also_good: HTTPStatus = HTTPStatus.OK, **query: str
    ) -> httpx.Response:
        url = self._base + path
        try:
            response = await self._client.get(url, params=query)
        except _FINAL as error:
            raise RequestFailed(f"{shown(url)}: {cause(error, url)}") from error
        except httpx.TransportError as error:
            raise Unavailable(f"{shown(url)}: {cause(error, url)}") from error
        if response.status_code in {HTTPStatus.OK, also_good}:
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
