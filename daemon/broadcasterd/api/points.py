"""Points of the page's charts: what was counted from one look at the figures to the next.

A point is a list of numbers, in the order of ``FIELDS``: the time of the look, figures of that
moment, rates over the time since the look before, percentiles of the durations in it, and counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from broadcasterd.api.stats import Boundary, Stats
from broadcasterd.core.reasons import EndReason
from broadcasterd.figures.counts import Cause
from broadcasterd.figures.histogram import Histogram, quantile
from broadcasterd.memory.breaker import MIB, State

SEVERITY = (None, State.CLOSED, State.WARNING, State.HALF_OPEN, State.OPEN)
"""States of the breaker; ``None``: it is switched off. A point has the index of the worst."""

_DURATIONS = ("publish", "fan_out", "commit", "loop_lag")
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

FIELDS = (
    *("time", "used_mb", "accounted_mb", "breaker", "sessions", "streams", "connections"),
    *("events_per_s", "publishes_per_s", "deliveries_per_s", "delivered_bytes_per_s"),
    "engine_events_per_s",
    *(f"{what}_{name}_ms" for what in _DURATIONS for name in _SHARES),
    "errors",
    *(f"failed.{boundary}" for boundary in Boundary),
    *(f"refused.{cause}" for cause in Cause),
    *(f"ended.{reason}" for reason in EndReason),
)
"""What each number of a point is. Counts have no unit in their name."""

KEPT_S, EVERY_S = 3600, 5.0
"""The last hour is kept, a point every so many seconds."""

Point = list[float]
Name = TypeVar("Name", bound=StrEnum)


class Points:
    """Makes points, each of what was counted since a look at the figures.

    Args:
        stats: the first look.
        now: its moment, in seconds on a monotonic clock.

    Attributes:
        since: the moment of the last look.

    """

    def __init__(self, stats: Stats, now: float) -> None:
        self._worst: State | None = None
        self._look(stats, now)

    def note(self, state: State) -> None:
        """Note that the breaker is in a state, however shortly."""
        self._worst = max(self._worst, state, key=SEVERITY.index)

    def take(self, stats: Stats, now: float, *, unix_time: float) -> Point:
        """Return the point from the look before to this one, which has that Unix time."""
        seconds, totals, buckets, worst = now - self.since, self._totals, self._buckets, self._worst
        self._look(stats, now)
        grown = [a - b for a, b in zip(self._totals, totals, strict=True)]
        vitals = stats.vitals
        return [
            round(unix_time, 2),
            round(vitals.used_bytes / MIB, 1),
            round(vitals.accounted_bytes / MIB, 1),
            SEVERITY.index(max(worst, vitals.breaker, key=SEVERITY.index)),
            vitals.sessions,
            vitals.subscribers,
            stats.connections,
            *(round(count / seconds, 1) for count in grown[:_RATES]),
            *(
                round(1000 * quantile(counts, share), 2)
                for counts in map(_difference, _histograms(stats), buckets)
                for share in _SHARES.values()
            ),
            *grown[_RATES:],
        ]

    def _look(self, stats: Stats, now: float) -> None:
        self.since = now
        self._totals = _totals(stats)
        self._buckets = [[*each.counts] for each in _histograms(stats)]
        self._worst = None


class LastHour:
    """The points of the last hour, as they are sent: some 200 bytes each, 200 KB in all."""

    def __init__(self) -> None:
        self._points: deque[bytes] = deque(maxlen=int(KEPT_S / EVERY_S))

    def __len__(self) -> int:
        return len(self._points)

    def add(self, point: Point) -> None:
        """Add the newest, and forget the oldest where there are enough."""
        self._points.append(msgspec.json.encode(point))

    def encode(self, **others: object) -> bytes:
        """Return all of them as a JSON object, with what else it is to have."""
        told = {
            "every_s": EVERY_S,
            "fields": FIELDS,
            "breaker_states": ["off" if state is None else state.value for state in SEVERITY],
            **others,
        }
        return msgspec.json.encode(told)[:-1] + b',"points":[' + b",".join(self._points) + b"]}"


_RATES = 5
"""The first totals are told by the second, the others as counts."""


def _totals(stats: Stats) -> Point:
    totals = stats.totals
    return [
        *(totals.events, totals.publishes, totals.deliveries, totals.delivered_bytes),
        stats.counts.committed_events,
        totals.errors,
        *_values(stats.failures, Boundary),
        *_values(stats.refused, Cause),
        *_values(stats.ended, EndReason),
    ]


def _values(counts: Mapping[Name, int], names: Iterable[Name]) -> list[int]:
    return [counts.get(name, 0) for name in names]


def _histograms(stats: Stats) -> tuple[Histogram, ...]:
    counts = stats.counts
    return counts.published, counts.fan_out, counts.commits, stats.lags


def _difference(histogram: Histogram, before: Sequence[int]) -> list[int]:
    return [a - b for a, b in zip(histogram.counts, before, strict=True)]
