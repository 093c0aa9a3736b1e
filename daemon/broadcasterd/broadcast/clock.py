"""The daemon's clock: a monotonic one for every duration, and the wall's to name moments.

A wall clock may be set, so nothing is ever measured by it. It is only read to translate the Unix
times that clients and tokens name; where it was set, grants are translated anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

import trio

Seconds = Callable[[], float]

SET_S = 0.5
"""Less than a step of NTP is (128 ms, and rarely), more than a busy machine needs for two looks."""


class Clock:
    """Monotonic time, and what the wall clock shows at its moments. All times in seconds.

    Args:
        monotonic: Trio's clock, so that tests can move it.
        wall: Unix time.

    Attributes:
        now: returns the moment; an attribute, for it is called several times an event.
        unix_now: returns the Unix time of this moment.

    """

    __slots__ = ("_offset", "now", "unix_now")

    def __init__(self, monotonic: Seconds = trio.current_time, wall: Seconds = time.time) -> None:
        self.now = monotonic
        self.unix_now = wall
        self._offset: float | None = None

    def moment(self, unix_time: float | None) -> float:
        """Return the moment of a Unix time; ``None`` is never, a moment infinitely far away."""
        return inf if unix_time is None else self.now() + unix_time - self.unix_now()

    def was_set_by(self) -> float:
        """Return by how many seconds the wall's clock was set since the last call; mostly 0.

        A clock that is slewed (adjtime(3)) counts once it is ``SET_S`` off.
        """
        offset = self.unix_now() - self.now()
        before = offset if self._offset is None else self._offset
        if self._offset is None or abs(offset - before) >= SET_S:
            self._offset = offset
        return self._offset - before

    def unix_time(self, moment: float) -> float | None:
        """Return the Unix time of a moment; ``None`` for never."""
        return None if moment == inf else self.unix_now() + moment - self.now()
