"""What ``/health`` says: figures, and a verdict that is a pure function of them."""

from __future__ import annotations

from dataclasses import dataclass

from broadcasterd import __version__
from broadcasterd.config import Memory

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Vitals:
    """The figures of one moment; times in seconds."""

    rss_bytes: int
    accounted_bytes: int
    sessions: int
    subscribers: int
    uptime: float
    draining: bool


def status(vitals: Vitals, memory: Memory) -> str:
    """Return ``healthy``, ``degraded`` (above warning, or draining) or ``unhealthy``."""
    rss_mb = vitals.rss_bytes / MIB
    if rss_mb >= memory.critical_mb:
        return "unhealthy"
    return "degraded" if rss_mb >= memory.warning_mb or vitals.draining else "healthy"


def document(vitals: Vitals, memory: Memory) -> dict[str, object]:
    """Return the answer to ``GET /health``."""
    return {
        "status": status(vitals, memory),
        "memory": {
            "rss_mb": round(vitals.rss_bytes / MIB, 1),
            "accounted_mb": round(vitals.accounted_bytes / MIB, 3),
            "warning_mb": memory.warning_mb,
            "critical_mb": memory.critical_mb,
        },
        "sessions": vitals.sessions,
        "subscribers": vitals.subscribers,
        "uptime_s": round(vitals.uptime, 1),
        "version": __version__,
    }
