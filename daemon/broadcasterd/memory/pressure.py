"""Memory pressure as the doors and the supervisor see it: the breaker, between its samples.

The kernel's figure is a second old when it is used, and a second is long: a publisher on the
same machine sends 50 MB in it. So what was counted since the last sample is added to it. Where
that sum reaches the critical threshold, the breaker opens at once; where it grows fast, the
supervisor is woken to take a sample early.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from broadcasterd.memory.breaker import Breaker, State, Thresholds, Transition

HALF_OPEN_SHARE = 10
"""One publish in so many passes a half-open breaker."""

EARLY_SAMPLE_SHARE = 4
"""A sample is taken early when one part in so many of the headroom was used since the last."""


class Pressure:
    """What may be accepted now.

    Args:
        thresholds: the breaker's; ``None`` switches it off, and everything is accepted.
        counted: the bytes that the daemon counts itself, now.
        clock: seconds on a monotonic clock.

    Attributes:
        watchers: told of each change of state, once and at once.
        excused: bytes that nothing can free, and that are held against nobody.

    """

    def __init__(
        self,
        thresholds: Thresholds | None,
        *,
        counted: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self.watchers: list[Callable[[Transition], None]] = []
        self.excused = 0
        self._breaker = None if thresholds is None else Breaker(thresholds)
        self._counted = counted
        self._clock = clock
        self._used_at_sample = 0
        self._counted_at_sample = 0
        self._asked = 0
        self._ring, self._bell = trio.open_memory_channel[None](1)

    @property
    def thresholds(self) -> Thresholds | None:
        """The breaker's thresholds, if there is one."""
        return None if self._breaker is None else self._breaker.thresholds

    @property
    def state(self) -> State | None:
        """The breaker's state; ``None`` if it is switched off."""
        return None if self._breaker is None else self._breaker.state

    def reconfigure(self, thresholds: Thresholds | None) -> None:
        """Go on with other thresholds; the next sample is judged by them."""
        if thresholds is None:
            self._breaker = None
        elif self._breaker is None:
            self._breaker = Breaker(thresholds)
        else:
            self._breaker.thresholds = thresholds

    def sample(self, used: int, *, excused: int = 0) -> None:
        """Take the kernel's figure of this moment, in bytes; ``excused`` of them do not count."""
        self.excused = excused
        self._used_at_sample = used - excused
        self._counted_at_sample = self._counted()
        self._observe(self._used_at_sample)

    def refuses_publish(self) -> bool:
        """Whether to turn a publication away. Of a half-open breaker a share passes."""
        refused = self.refuses_more()
        if self.state is State.HALF_OPEN:
            self._asked += 1
            return self._asked % HALF_OPEN_SHARE != 0
        return refused

    def refuses_more(self) -> bool:
        """Whether to stop a publication that was let in before."""
        if self._breaker is None:
            return False
        self._look_between_samples(self._breaker)
        return self._breaker.state is State.OPEN

    def refuses_subscriber(self) -> bool:
        """Whether to tell a new subscriber to come back later."""
        return self.state is State.OPEN

    async def wait_for_growth(self) -> None:
        """Wait until so much was accepted that a new sample is due."""
        await self._bell.receive()

    def _look_between_samples(self, breaker: Breaker) -> None:
        grown = self._counted() - self._counted_at_sample
        if grown <= 0:
            return
        headroom = breaker.thresholds.critical - self._used_at_sample
        if grown >= headroom:
            self._observe(self._used_at_sample + grown)
        if grown >= headroom // EARLY_SAMPLE_SHARE:
            with suppress(trio.WouldBlock):  # it was rung already
                self._ring.send_nowait(None)

    def _observe(self, used: int) -> None:
        if self._breaker is not None:
            for transition in self._breaker.observe(used, now=self._clock()):
                for tell in self.watchers:
                    tell(transition)
