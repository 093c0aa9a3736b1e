"""How a figure moved over the last minutes."""

from __future__ import annotations

from collections import deque

STEP_S = 10.0
KEPT = 30
"""Thirty figures, ten seconds apart: five minutes."""


class Trend:
    """The last figures, one a step, and the slope of the line through them."""

    def __init__(self) -> None:
        self._figures: deque[tuple[float, float]] = deque(maxlen=KEPT)

    def add(self, figure: float, *, now: float) -> None:
        """Take a figure, unless one was taken less than a step ago. Seconds, monotonic."""
        if not self._figures or now - self._figures[-1][0] >= STEP_S:
            self._figures.append((now, figure))

    @property
    def figures(self) -> list[float]:
        """The figures kept, oldest first."""
        return [figure for _, figure in self._figures]

    @property
    def per_minute(self) -> float:
        """The slope of the least-squares line, per minute; 0 with fewer than two figures."""
        if len(self._figures) < 2:  # noqa: PLR2004 - as many points as a line needs
            return 0.0
        mean_t = sum(t for t, _ in self._figures) / len(self._figures)
        spread = sum((t - mean_t) ** 2 for t, _ in self._figures)
        return 60 * sum((t - mean_t) * y for t, y in self._figures) / spread
