"""Rates over the last seconds and minutes, of totals that only grow."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

FINE_S, COARSE_S = 1.0, 10.0
"""Between two samples that are kept: for windows of up to a minute, and of up to ten."""

SLACK_S = 0.1
"""So much early, a sample is taken as well: clocks are not exact."""

WINDOWS_S = {"10s": 10.0, "1m": 60.0, "10m": 600.0}


class Totals(NamedTuple):
    """Counts since the start."""

    events: int = 0
    publishes: int = 0
    deliveries: int = 0
    delivered_bytes: int = 0
    requests: int = 0
    errors: int = 0
    refusals: int = 0
    publishes_refused: int = 0


class Rates:
    """Samples of totals, and what they grew by in a second.

    Args:
        now: the moment of the start, at which all totals are 0. Seconds, monotonic.

    """

    def __init__(self, now: float) -> None:
        start = (now, Totals())
        self._fine = deque([start], maxlen=int(60 / FINE_S) + 1)
        self._coarse = deque([start], maxlen=int(600 / COARSE_S) + 1)

    def add(self, totals: Totals, now: float) -> None:
        """Take a sample; one too many does no harm."""
        for samples, step in (self._fine, FINE_S), (self._coarse, COARSE_S):
            if now - samples[-1][0] >= step - SLACK_S:
                samples.append((now, totals))

    def grown(self, totals: Totals, now: float, window: float) -> tuple[Totals, float]:
        """Return by how much the totals grew in the last ``window`` seconds, and those seconds.

        They are fewer where the daemon is younger, and more by one sample at the most.
        """
        samples = self._fine if window <= 60 else self._coarse  # noqa: PLR2004 (see FINE_S)
        since, before = next(
            (sample for sample in reversed(samples) if now - sample[0] >= window), samples[0]
        )
        grown = Totals._make(a - b for a, b in zip(totals, before, strict=True))
        return grown, max(now - since, FINE_S)
