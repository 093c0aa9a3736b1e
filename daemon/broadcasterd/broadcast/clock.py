"""The daemon's clock: a monotonic one for every duration, and the wall's to name moments.

A wall clock may be set back, so nothing is ever measured by it. It is only read to translate the
Unix times that clients and tokens name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

import trio

Seconds = Callable[[], float]


class Clock:
    """Monotonic time, and what the wall clock shows at its moments. All times in seconds.

    Args:
        monotonic: Trio's clock, so that tests can move it.
        wall: Unix time.

    Attributes:
        now: returns the moment; an attribute, for it is called several times an event.
        unix_now: returns the Unix time of this moment.

    """

    __slots__ = ("now", "unix_now")

    def __init__(self, monotonic: Seconds = trio.current_time, wall: Seconds = time.time) -> None:
        self.now = monotonic
        self.unix_now = wall

    def moment(self, unix_time: float | None) -> float:
        """Return the moment of a Unix time; ``None`` is never, a moment infinitely far away."""
        return inf if unix_time is None else self.now() + unix_time - self.unix_now()

    def unix_time(self, moment: float) -> float | None:
        """Return the Unix time of a moment; ``None`` for never."""
        return None if moment == inf else self.unix_now() + moment - self.now()
