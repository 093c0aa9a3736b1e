"""The answer of ``/health``: figures, and a verdict that is a pure function of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broadcasterd import __version__
from broadcasterd.engine.port import Health as Engine
from broadcasterd.memory.breaker import MIB, State, Thresholds


@dataclass(frozen=True, slots=True)
class Vitals:
    """The figures of one moment. Bytes, and seconds.

    Attributes:
        used_bytes: bytes that count against the thresholds.
        excused_bytes: of those, the ones that nothing can free, and that are held against nobody.
        client_bytes: of the accounted ones, those of connections, requests and streams.
        breaker: its state; ``None`` where it is switched off.
        trend: megabytes used over the last minutes, oldest first, one a step of 10 s.
        trend_per_minute: the slope of that, in megabytes.
        alerts: the names of those that fire.
        engine: the state of what keeps events.

    """

    rss_bytes: int
    used_bytes: int
    excused_bytes: int
    accounted_bytes: int
    client_bytes: int
    cgroup_limit_bytes: int | None
    stalled_percent: float | None
    thresholds: Thresholds
    breaker: State | None
    trend: Sequence[float]
    trend_per_minute: float
    loop_lag: float
    max_loop_lag: float
    long_steps: int
    sessions: int
    subscribers: int
    uptime: float
    draining: bool
    alerts: Sequence[str]
    engine: Engine


def status(vitals: Vitals) -> str:
    """Return the verdict.

    ``unhealthy``: publishing is refused, or without a breaker would have to be. ``degraded``:
    memory is being freed, a share is refused, events cannot be kept, or the daemon drains. Else
    ``healthy``.
    """
    used, thresholds = vitals.used_bytes, vitals.thresholds
    if vitals.breaker is State.OPEN or (vitals.breaker is None and used >= thresholds.critical):
        return "unhealthy"
    if vitals.breaker is State.CLOSED or (vitals.breaker is None and used < thresholds.warning):
        return "degraded" if vitals.draining or vitals.engine.why else "healthy"
    return "degraded"


def document(vitals: Vitals) -> dict[str, object]:
    """Return the answer to ``GET /health``."""
    memory: dict[str, object] = {
        "rss_mb": _mb(vitals.rss_bytes),
        "used_mb": _mb(vitals.used_bytes),
        "accounted_mb": round(vitals.accounted_bytes / MIB, 3),
        "clients_mb": round(vitals.client_bytes / MIB, 3),
        "warning_mb": _mb(vitals.thresholds.warning),
        "critical_mb": _mb(vitals.thresholds.critical),
        "breaker": "off" if vitals.breaker is None else vitals.breaker.value,
        "trend": {
            "used_mb": [round(figure, 1) for figure in vitals.trend],
            "mb_per_minute": round(vitals.trend_per_minute, 2),
        },
    }
    if vitals.excused_bytes:
        memory["unfreeable_mb"] = _mb(vitals.excused_bytes)
    if vitals.cgroup_limit_bytes is not None:
        memory["cgroup_limit_mb"] = _mb(vitals.cgroup_limit_bytes)
    if vitals.stalled_percent is not None:
        memory["stalled_percent"] = vitals.stalled_percent
    return {
        "status": status(vitals),
        "memory": memory,
        "engine": engine_document(vitals.engine),
        "loop": {
            "lag_ms": _ms(vitals.loop_lag),
            "max_lag_ms": _ms(vitals.max_loop_lag),
            "long_steps": vitals.long_steps,
        },
        "sessions": vitals.sessions,
        "subscribers": vitals.subscribers,
        "alerts": [*vitals.alerts],
        "uptime_s": round(vitals.uptime, 1),
        "version": __version__,
    }


def engine_document(engine: Engine) -> dict[str, object]:
    """Return which engine there is, and how it is."""
    found: dict[str, object] = {"kind": engine.kind, "state": "down" if engine.why else "up"}
    if engine.why:
        found["why"] = engine.why
    return found


def _mb(size: float) -> float:
    return round(size / MIB, 1)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
