"""The answer of ``/stats``: every figure of a moment, as one document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from broadcasterd.api import health
from broadcasterd.api.health import Vitals
from broadcasterd.broadcast.subscribers import Sent
from broadcasterd.core.reasons import EndReason
from broadcasterd.figures.counts import Cause, Counts, Requests
from broadcasterd.figures.histogram import Histogram, Quantiles
from broadcasterd.figures.rates import Totals
from broadcasterd.memory.breaker import MIB, State


class Boundary(StrEnum):
    """Where a failure was contained."""

    CONNECTION = "connection"
    REQUEST = "request"
    RESPONSE = "response"
    SESSION = "session"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Change:
    """A transition of the breaker: its Unix time, and the bytes that were used."""

    at: float
    before: State
    after: State
    used: int


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much totals grew in so many seconds."""

    totals: Totals
    seconds: float


@dataclass(frozen=True, slots=True)
class OfRoute:
    """The requests of one route since the start, and their durations in the last minute."""

    method: str
    path: str
    requests: Requests
    recent: Quantiles


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule, and how it stands.

    Attributes:
        value: of the figure, when it was looked at last; ``None``: it had none.
        firing_s: for how many seconds it fires; ``None``: it does not.

    """

    name: str
    metric: str
    value: float | None
    threshold: float
    severity: str
    firing_s: float | None


@dataclass(frozen=True, slots=True)
class Stats:
    """All figures of a moment. Counts are since the start; quantiles are of the last minute.

    Attributes:
        started_at: the Unix time of the start.
        cpu: seconds of processor time that the process took.
        ended: streams that ended, by reason.
        refused: requests and connections that were turned away, by cause.
        entered: transitions of the breaker, by the state that it went to.
        history: the latest of them, oldest first.
        totals: what grows.
        growth: of the last 10 s, minute and 10 min, by that name.
        lags: of the event loop.
        alerts: one of each rule.

    """

    vitals: Vitals
    counts: Counts
    sent: Sent
    started_at: float
    cpu: float
    connections: int
    max_connections: int
    max_sessions: int
    max_streams: int
    ended: Mapping[EndReason, int]
    refused: Mapping[Cause, int]
    failures: Mapping[Boundary, int]
    entered: Mapping[State, int]
    history: Sequence[Change]
    totals: Totals
    growth: Mapping[str, Growth]
    published: Quantiles
    fan_out: Quantiles
    commits: Quantiles
    lags: Histogram
    recent_lags: Quantiles
    routes: Sequence[OfRoute]
    alerts: Sequence[Alert]


def document(stats: Stats) -> dict[str, object]:
    """Return the answer to ``GET /stats``."""
    vitals = health.document(stats.vitals)
    return {
        **{name: vitals[name] for name in ("version", "uptime_s", "status")},
        "sessions": stats.vitals.sessions,
        "streams": stats.vitals.subscribers,
        "connections": stats.connections,
        "engine": _engine(stats),
        "alerts": [_alert(alert) for alert in stats.alerts],
        "counters": _counters(stats),
        "performance": {
            "rates": {name: _rates(growth) for name, growth in stats.growth.items()},
            "error_rate": {name: _error_rate(growth) for name, growth in stats.growth.items()},
            "latency_ms": {
                "publish": _quantiles(stats.published),
                "fan_out": _quantiles(stats.fan_out),
                "loop_lag": _quantiles(stats.recent_lags),
                "requests": {
                    f"{route.method} {route.path}": _quantiles(route.recent)
                    for route in stats.routes
                    if route.recent.count
                },
            },
            "errors": {boundary.value: stats.failures[boundary] for boundary in Boundary},
            "loop": vitals["loop"],
            "memory": vitals["memory"],
            "breaker": {
                "state": "off" if stats.vitals.breaker is None else stats.vitals.breaker.value,
                "history": [_change(change) for change in stats.history],
            },
        },
    }


def _counters(stats: Stats) -> dict[str, object]:
    counts = stats.counts
    return {
        "events": counts.events,
        "duplicates": counts.duplicates,
        "deliveries": stats.sent.events,
        "delivered_bytes": stats.sent.bytes,
        "publishes": {
            form.value: {str(status): count for status, count in sorted(by_status.items())}
            for form, by_status in counts.publishes.items()
            if by_status
        },
        "streams_opened": counts.streams_opened,
        "streams_ended": {reason.value: stats.ended.get(reason, 0) for reason in EndReason},
        "refused": {cause.value: stats.refused.get(cause, 0) for cause in Cause},
        "failures": {boundary.value: stats.failures[boundary] for boundary in Boundary},
        "log_records": {
            "dropped": counts.dropped_records + counts.unwritten_records,
            "left_out": counts.left_out_records,
        },
        "notices": {"delivered": counts.notices_delivered, "lost": counts.notices_lost},
        "breaker_transitions": {state.value: stats.entered.get(state, 0) for state in State},
        "expired": {"events": counts.expired_events, "sessions": counts.expired_sessions},
        "gaps": counts.gaps,
    }


def _engine(stats: Stats) -> dict[str, object]:
    counts, engine = stats.counts, stats.vitals.engine
    return {
        **health.engine_document(engine),
        "disk_bytes": engine.disk_bytes,
        "commits": sum(counts.commits.counts),
        "committed_events": counts.committed_events,
        "lost_events": engine.lost,
        "commit_ms": _quantiles(stats.commits),
    }


def _rates(growth: Growth) -> dict[str, float]:
    grown, seconds = growth.totals, growth.seconds
    return {f"{name}_per_s": round(count / seconds, 2) for name, count in grown._asdict().items()}


def _error_rate(growth: Growth) -> float:
    """Return the share of requests that were answered with a status of 500 or above."""
    return round(growth.totals.errors / max(growth.totals.requests, 1), 4)


def _quantiles(found: Quantiles) -> dict[str, float]:
    return {
        "count": found.count,
        "p50": _ms(found.p50),
        "p95": _ms(found.p95),
        "p99": _ms(found.p99),
        "max": _ms(found.longest),
    }


def _alert(alert: Alert) -> dict[str, object]:
    return {
        "name": alert.name,
        "firing": alert.firing_s is not None,
        "firing_s": None if alert.firing_s is None else round(alert.firing_s, 1),
        "severity": alert.severity,
        "metric": alert.metric,
        "value": None if alert.value is None else round(alert.value, 4),
        "threshold": alert.threshold,
    }


def _change(change: Change) -> dict[str, object]:
    return {
        "time": datetime.fromtimestamp(change.at, UTC).isoformat(timespec="milliseconds"),
        "from": change.before.value,
        "to": change.after.value,
        "used_mb": round(change.used / MIB, 1),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
