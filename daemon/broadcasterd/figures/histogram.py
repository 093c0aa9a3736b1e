"""Durations by size: buckets that get wider with what they hold, so that the error is a share.

The bounds are the preferred numbers R20 of ISO 3: twenty a decade, each some 12 % above the one
before. Those of Prometheus' own libraries (5 ms, 10 ms, 25 ms …) are among them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import sqrt

_R20 = (
    *(1.00, 1.12, 1.25, 1.40, 1.60, 1.80, 2.00, 2.24, 2.50, 2.80),
    *(3.15, 3.55, 4.00, 4.50, 5.00, 5.60, 6.30, 7.10, 8.00, 9.00),
)
_DECADES = range(-5, 2)

BOUNDS = (*(float(f"{number}e{decade}") for decade in _DECADES for number in _R20), 100.0)
"""Upper bounds in seconds, from 10 µs to 100 s; what is longer is in one more bucket."""

ERROR = 0.07
"""A quantile is off by this share at most, between the first bound and the last: it is the middle
of a bucket whose upper bound is 1.143 times the lower one at most, and sqrt(1.143) is 1.069."""

WINDOW_TURNS = 6
"""Turns that a window looks back over."""


class Histogram:
    """Durations in seconds, counted by bucket since the start.

    Attributes:
        counts: how many were within each of ``BOUNDS``, and not within the one before; and above.
        total: their sum.
        longest: the longest since the last :meth:`take_longest`.

    """

    __slots__ = ("counts", "longest", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.longest = 0.0

    def record(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        if seconds > self.longest:  # noqa: PLR1730 (a call of max would cost as much as the rest)
            self.longest = seconds

    def take_longest(self) -> float:
        """Return the longest duration since the last call."""
        longest, self.longest = self.longest, 0.0
        return longest


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Durations of one window, in seconds; all 0 where there was none. ``longest`` is exact."""

    count: int
    p50: float
    p95: float
    p99: float
    longest: float


class Window:
    """The durations of the last turns of a histogram; turns are somebody else's clock."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        begin = tuple(histogram.counts)
        self._turns: deque[tuple[tuple[int, ...], float]] = deque([(begin, 0.0)], WINDOW_TURNS + 1)

    def turn(self) -> None:
        """Begin another turn, and forget the oldest."""
        counts, (before, _) = tuple(self._histogram.counts), self._turns[-1]
        # Where nothing came, the same tuple stands for both: most routes are idle.
        kept = before if counts == before else counts
        self._turns.append((kept, self._histogram.take_longest()))

    def quantiles(self) -> Quantiles:
        """Return those of the last turns, and of the one that goes on."""
        (before, _), *turns = self._turns
        counts = [now - then for now, then in zip(self._histogram.counts, before, strict=True)]
        longest = max([self._histogram.longest, *(longest for _, longest in turns)])
        p50, p95, p99 = (min(quantile(counts, share), longest) for share in (0.5, 0.95, 0.99))
        return Quantiles(sum(counts), p50, p95, p99, longest)


def quantile(counts: Sequence[int], share: float) -> float:
    """Return the duration that this share of all does not exceed, in seconds; see ``ERROR``."""
    up_to = [*accumulate(counts)]
    if not up_to[-1]:
        return 0.0
    index = bisect_left(up_to, share * up_to[-1])
    upper = BOUNDS[min(index, len(BOUNDS) - 1)]
    lower = BOUNDS[index - 1] if index else 0.0
    return sqrt(lower * upper) or upper
