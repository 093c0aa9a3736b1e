"""How much a warning frees: what brings memory back, and never much more.

The resident set is a poor witness. It lags behind what was freed, and where small objects lie
between others that stay, it does not fall at all: a rule that frees until the figure is right frees
everything. So an excess has a ration, by the daemon's own account. When that is used up, nothing
more is freed until more is published.
"""

from __future__ import annotations

RATION = 1.5
"""Bytes that are freed at most for each byte that there was too much, or was published since."""

MARGIN_SHARE = 8
"""A step frees one part in so many more than the excess: memory has to stay below for a while."""

SMALLEST_STEP_BYTES = 256 * 1024
"""Less than this is lost in what the resident set moves by itself."""


class Ration:
    """The bytes that may be freed for the excess of this moment.

    A step is asked for only when all that was freed before has been given back and measured.
    """

    def __init__(self) -> None:
        self._excess: int | None = None  # when it began; None: there is none
        self._counted = 0  # when it began
        self._freed = 0  # since then

    def step(self, excess: int, counted: int) -> int:
        """Return how many bytes to free now.

        Args:
            excess: the bytes that there are too many, measured; negative where there are too few.
            counted: bytes that the daemon holds by its own account, where they can be freed. Where
                they do not explain an excess, it does not cost them more than it did at first.

        """
        if excess < 0:
            self._excess = None
            return 0
        if self._excess is None:
            self._excess, self._counted, self._freed = excess, counted, 0
        published = counted - self._counted + self._freed
        ration = max(int(RATION * (self._excess + published)), SMALLEST_STEP_BYTES)
        wanted = max(excess + excess // MARGIN_SHARE, SMALLEST_STEP_BYTES)
        return max(0, min(wanted, ration - self._freed))

    def spend(self, freed: int) -> None:
        """Take note of what a step has freed, by the same account."""
        self._freed += freed
