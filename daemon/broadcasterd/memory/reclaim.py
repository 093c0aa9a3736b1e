"""When to give freed memory back to the kernel: that takes some 20 ms, and the loop waits."""

from __future__ import annotations

from math import inf

from broadcasterd.memory.breaker import State

WORTH_RELEASING_BYTES = 1024 * 1024
"""Less than this is not worth the wait."""

RELEASE_INTERVAL_S = 1.0
"""At most one part in fifty of the time goes into it."""

LONGEST_PAUSE_S = 30.0
"""Between two of those that look for memory that no count explains."""

LONGEST_PAUSE_WITHOUT_PRESSURE_S = 300.0
"""Between two of those, while nobody needs it."""


class ReleaseRule:
    """Says when, from the breaker's state and the bytes that the daemon counts itself.

    Only under pressure, or where it is much: otherwise what was freed is soon used again. And once
    more after each time: what has been forgotten may still have been about to end.

    Attributes:
        is_wanted: whether the resident set tells nothing until it is done: after a change of state,
            and after a step that freed something. Whoever takes such a step sets it.

    """

    def __init__(self) -> None:
        self.is_wanted = False
        self._most = 0  # counted since the last release
        self._not_before = -inf
        self._state: State | None = State.CLOSED
        self._once_more = False
        self._pause = RELEASE_INTERVAL_S
        self._look_again_at = -inf

    def freed(self, counted: int) -> int:
        """Return the bytes that were freed since the last release: RSS shows them still."""
        return max(0, self._most - counted)

    def is_due(self, *, counted: int, state: State | None, now: float, is_puzzling: bool) -> bool:
        """Take the figures of this moment; ``True`` says that it is done now.

        ``is_puzzling`` says that more is resident than any count explains, so much that it is in
        the way, or a waste: whatever the counts do, it is looked for again and again, after pauses
        that grow.
        """
        if state is None:  # the breaker is off
            return False
        if state is not self._state:
            self._state = state
            self.is_wanted = True
            self._pause, self._look_again_at = RELEASE_INTERVAL_S, now
        if not is_puzzling:
            self._pause = RELEASE_INTERVAL_S
        elif now >= self._look_again_at:
            self.is_wanted = True
        self._most = max(self._most, counted)
        worth_it = state is not State.CLOSED and self.freed(counted) >= WORTH_RELEASING_BYTES
        if now < self._not_before or not (worth_it or self._once_more or self.is_wanted):
            return False
        self._once_more = worth_it
        self.is_wanted = False
        self._most = counted
        self._not_before = now + RELEASE_INTERVAL_S
        self._look_again_at = now + self._pause
        if is_puzzling:
            under_pressure = state is not State.CLOSED
            most = LONGEST_PAUSE_S if under_pressure else LONGEST_PAUSE_WITHOUT_PRESSURE_S
            self._pause = min(2 * self._pause, most)
        return True
