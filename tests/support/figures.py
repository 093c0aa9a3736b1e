"""Made-up figures: of everything some, and each another number."""

from __future__ import annotations

from broadcasterd.api.health import Vitals
from broadcasterd.api.stats import Alert, Boundary, Change, Growth, OfRoute, Stats
from broadcasterd.broadcast.subscribers import Sent
from broadcasterd.core.reasons import EndReason
from broadcasterd.engine.port import Health
from broadcasterd.figures.counts import Cause, Counts, Format, Requests
from broadcasterd.figures.histogram import Histogram, Quantiles
from broadcasterd.figures.rates import Totals
from broadcasterd.memory.breaker import MIB, State, Thresholds

NONE = Quantiles(0, 0.0, 0.0, 0.0, 0.0)

VITALS = Vitals(
    rss_bytes=100 * MIB,
    used_bytes=512 * MIB,
    excused_bytes=0,
    accounted_bytes=12_345_678,
    client_bytes=1_234_567,
    cgroup_limit_bytes=None,
    stalled_percent=2.5,
    thresholds=Thresholds(warning=200 * MIB, critical=500 * MIB, recover=180 * MIB),
    breaker=State.OPEN,
    trend=[100.0, 512.0],
    trend_per_minute=60.0,
    loop_lag=0.001,
    max_loop_lag=0.25,
    long_steps=3,
    sessions=7,
    subscribers=42,
    uptime=3600.0,
    draining=False,
    alerts=["memory_critical"],
    engine=Health("sqlite", lost=13, disk_bytes=65_536),
)


def histogram(*durations: float) -> Histogram:
    """Return a histogram of these durations."""
    made = Histogram()
    for seconds in durations:
        made.record(seconds)
    return made


def made_up() -> Stats:
    """Return figures."""
    counts = Counts()
    counts.events, counts.duplicates, counts.gaps, counts.streams_opened = 50, 2, 6, 46
    counts.publishes[Format.JSON] = {200: 9, 503: 1}
    counts.published = histogram(0.0005, 0.002, 7.0)
    counts.commits, counts.committed_events = histogram(0.004), 49
    counts.expired_events, counts.expired_sessions = 8, 1
    counts.notices_delivered, counts.notices_lost = 11, 12
    counts.dropped_records, counts.unwritten_records, counts.left_out_records = 20, 10, 5
    health, stats = Requests(), Requests()
    health.by_status = {200: 29, 503: 1}
    health.durations = histogram(0.003)
    nothing = Growth(Totals(), 60.0)
    return Stats(
        vitals=VITALS,
        counts=counts,
        sent=Sent(500, 40_000),
        started_at=1_764_000_000.0,
        cpu=12.5,
        connections=44,
        max_connections=20_000,
        max_sessions=10_000,
        max_streams=15_000,
        ended={EndReason.SLOW_CONSUMER: 4},
        refused={Cause.TOKEN: 3},
        failures={**dict.fromkeys(Boundary, 0), Boundary.SESSION: 1},
        entered={State.WARNING: 1, State.OPEN: 1},
        history=[Change(1_764_000_000.25, State.WARNING, State.OPEN, 512 * MIB)],
        totals=Totals(50, 10, 500, 40_000, 40, 1, 3),
        growth={
            "10s": Growth(Totals(50, 10, 500, 40_000, 40, 1, 3, 2), 10.0),
            "1m": nothing,
            "10m": nothing,
        },
        published=Quantiles(10, 0.0005, 0.00125, 0.002, 0.0025),
        fan_out=NONE,
        commits=NONE,
        lags=histogram(0.001, 0.25),
        recent_lags=NONE,
        routes=[
            OfRoute("GET", "/health", health, Quantiles(30, 0.003, 0.003, 0.003, 0.003)),
            OfRoute("GET", "/stats", stats, NONE),
        ],
        alerts=[
            Alert("memory_critical", "used_mb", 512.0, 500.0, "critical", 12.5),
            Alert("error_rate", "error_rate", None, 0.01, "warning", None),
        ],
    )
