"""All figures as Prometheus reads them: its text format, or OpenMetrics where that is asked for.

Names and units are as its conventions say. No label has a value that users choose: what a label
may be is in the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from broadcasterd import __version__
from broadcasterd.api.answer import Answer
from broadcasterd.api.stats import Boundary, Stats
from broadcasterd.core.reasons import EndReason
from broadcasterd.figures.counts import Cause
from broadcasterd.figures.histogram import BOUNDS, Histogram
from broadcasterd.memory.breaker import State

LE = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""The bounds that are told, in seconds: some of ours, so that their counts are exact."""

_INDEXES = [BOUNDS.index(bound) for bound in LE]


def exposition(stats: Stats, accept: str) -> Answer:
    """Return all figures in the format that ``Accept`` prefers."""
    encode, content_type = choose_encoder(accept)
    headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
    return Answer(headers=headers, body=encode(_Figures(stats)))


class _Figures(Collector):
    """The figures of a moment as families of metrics."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    @override
    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        yield InfoMetricFamily("broadcasterd_build", "The version.", {"version": __version__})
        yield from _of_process(stats)
        yield from _now(stats)
        yield from _memory(stats)
        yield from _broadcasting(stats)
        yield from _engine(stats)
        yield from _requests(stats)
        yield from _trouble(stats)


def _of_process(stats: Stats) -> Iterator[Metric]:
    """Yield what every client library tells, under the same names."""
    yield GaugeMetricFamily(
        "process_start_time_seconds", "Unix time of the start.", stats.started_at
    )
    yield CounterMetricFamily("process_cpu_seconds", "Processor time.", stats.cpu)
    yield GaugeMetricFamily(
        "process_resident_memory_bytes", "Memory resident.", stats.vitals.rss_bytes
    )


def _now(stats: Stats) -> Iterator[Metric]:
    yield _gauge("sessions", "Sessions that are open.", stats.vitals.sessions)
    yield _gauge("sessions_max", "Sessions that there may be.", stats.max_sessions)
    yield _gauge("streams", "Streams that are open.", stats.vitals.subscribers)
    yield _gauge("streams_max", "Streams that there may be.", stats.max_streams)
    yield _gauge("connections", "Connections that are open, streams included.", stats.connections)
    yield _gauge("connections_max", "Connections that there may be.", stats.max_connections)
    yield _gauge("draining", "1 while the daemon takes nothing more.", stats.vitals.draining)
    lags = _histogram("event_loop_lag_seconds", "How late a task that slept was woken.")
    lags.add_metric([], *_buckets(stats.lags))
    yield lags
    yield _counter(
        "event_loop_long_steps",
        "Steps of a task that took 100 ms or more.",
        stats.vitals.long_steps,
    )


def _memory(stats: Stats) -> Iterator[Metric]:
    vitals = stats.vitals
    yield _gauge(
        "memory_used_bytes", "Memory that counts against the thresholds.", vitals.used_bytes
    )
    yield _gauge(
        "memory_accounted_bytes", "Memory that the daemon counts itself.", vitals.accounted_bytes
    )
    yield _gauge("memory_clients_bytes", "Memory of it that clients hold.", vitals.client_bytes)
    yield _gauge("memory_warning_bytes", "Threshold of warning.", vitals.thresholds.warning)
    yield _gauge("memory_critical_bytes", "Threshold of the breaker.", vitals.thresholds.critical)
    if vitals.stalled_percent is not None:
        yield _gauge(
            "memory_stalled_ratio",
            "Share of the last 10 s in which a task of the cgroup waited for memory.",
            vitals.stalled_percent / 100,
        )
    state = GaugeMetricFamily(
        "broadcasterd_breaker_state",
        "1 for the state that the breaker is in; 0 for all where it is switched off.",
        labels=["state"],
    )
    for each in State:
        state.add_metric([each.value], vitals.breaker is each)
    yield state
    yield _counters(
        "breaker_transitions",
        "Transitions of the breaker, by the state that it went to.",
        "to",
        {each.value: stats.entered.get(each, 0) for each in State},
    )


def _broadcasting(stats: Stats) -> Iterator[Metric]:
    counts = stats.counts
    yield _counter("events", "Events that were put into a log.", counts.events)
    yield _counter(
        "duplicates",
        "Events that were not, for their idempotency key was there.",
        counts.duplicates,
    )
    yield _counter("deliveries", "Events that were sent on streams.", stats.sent.events)
    yield _counter("delivered_bytes", "Bytes that were sent on streams.", stats.sent.bytes)
    publishes = CounterMetricFamily(
        "broadcasterd_publishes",
        "Requests to publish, by the format of the body and the HTTP status.",
        labels=["format", "status"],
    )
    for form, by_status in counts.publishes.items():
        for status, count in sorted(by_status.items()):
            publishes.add_metric([form.value, str(status)], count)
    yield publishes
    yield _counter("streams_opened", "Streams that were opened.", counts.streams_opened)
    yield _counters(
        "streams_ended",
        "Streams that ended, by reason.",
        "reason",
        {reason.value: stats.ended.get(reason, 0) for reason in EndReason},
    )
    yield _counter("gaps", "Gaps that streams were told of.", counts.gaps)
    yield _counter(
        "expired_events", "Events forgotten because of their age.", counts.expired_events
    )
    yield _counter(
        "expired_sessions", "Sessions forgotten because of their age.", counts.expired_sessions
    )
    published = _histogram(
        "publish_duration_seconds", "From a body, or a piece of a stream, to its receipt."
    )
    published.add_metric([], *_buckets(counts.published))
    yield published
    fan_out = _histogram(
        "fan_out_duration_seconds", "From an event's place in the log to the last of its sockets."
    )
    fan_out.add_metric([], *_buckets(counts.fan_out))
    yield fan_out


def _engine(stats: Stats) -> Iterator[Metric]:
    counts, engine = stats.counts, stats.vitals.engine
    up = GaugeMetricFamily(
        "broadcasterd_engine_up", "1 while events can be kept, by the engine.", labels=["kind"]
    )
    up.add_metric([engine.kind], not engine.why)
    yield up
    yield _gauge("engine_disk_bytes", "What the engine has on disk.", engine.disk_bytes)
    yield _counter("engine_events", "Events that the engine was given.", counts.committed_events)
    yield _counter(
        "engine_lost_events", "Events that were answered 200, and not kept.", engine.lost
    )
    commits = _histogram("engine_commit_duration_seconds", "Of a commit, for all that had come.")
    commits.add_metric([], *_buckets(counts.commits))
    yield commits


def _requests(stats: Stats) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "broadcasterd_requests",
        "Requests but publishes, by route and HTTP status; 499: the client left.",
        labels=["method", "route", "status"],
    )
    durations = _histogram(
        "request_duration_seconds",
        "From a head to its answer, or to the admission of a stream; but publishes.",
        labels=["method", "route"],
    )
    for route in stats.routes:
        labels = [route.method, route.path]
        for status, count in sorted(route.requests.by_status.items()):
            requests.add_metric([*labels, str(status)], count)
        if route.requests.by_status:  # most routes are never asked for
            durations.add_metric(labels, *_buckets(route.requests.durations))
    yield requests
    yield durations


def _trouble(stats: Stats) -> Iterator[Metric]:
    counts = stats.counts
    yield _counters(
        "refusals",
        "Requests and connections that were turned away, by cause.",
        "cause",
        {cause.value: stats.refused.get(cause, 0) for cause in Cause},
    )
    yield _counters(
        "failures",
        "Failures of ours that were contained, by where.",
        "boundary",
        {boundary.value: stats.failures[boundary] for boundary in Boundary},
    )
    firing = GaugeMetricFamily(
        "broadcasterd_alert_firing",
        "1 for each rule of the configuration whose alert fires, else 0.",
        labels=["alert"],
    )
    for alert in stats.alerts:
        firing.add_metric([alert.name], alert.firing_s is not None)
    yield firing
    yield _counters(
        "alert_notices",
        "News of alerts for webhooks, by whether one took it.",
        "result",
        {"delivered": counts.notices_delivered, "lost": counts.notices_lost},
    )
    yield _counters(
        "log_records_dropped",
        "Records that were not written: the queue was full, journald took none, or too many came.",
        "why",
        {
            "queue": counts.dropped_records,
            "journald": counts.unwritten_records,
            "limit": counts.left_out_records,
        },
    )


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"broadcasterd_{name}", what, value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"broadcasterd_{name}", what, value)


def _counters(name: str, what: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"broadcasterd_{name}", what, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family


def _histogram(name: str, what: str, labels: Iterable[str] = ()) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"broadcasterd_{name}", what, labels=[*labels])


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulative counts by bound, and the sum."""
    up_to = [*accumulate(histogram.counts)]
    buckets = [(str(bound), float(up_to[index])) for bound, index in zip(LE, _INDEXES, strict=True)]
    return [*buckets, ("+Inf", float(up_to[-1]))], histogram.total
