"""The lag of the event loop, always; and the name of any task that holds it up.

In one Trio run, everything waits for the step that is being run. A step that takes long is a
defect somewhere, and the figure alone would not say where.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from time import perf_counter

import structlog
import trio
from typing_extensions import override

from broadcasterd.figures.histogram import Histogram

log = structlog.stdlib.get_logger(__name__)

INTERVAL_S = 0.25
KEPT = 240
"""A minute of measurements."""

RECENT = 40
"""Ten seconds of them."""

LONG_STEP_S = 0.1
"""All the time that /health may take; no single step may take as much."""


class LoopWatch(trio.abc.Instrument):
    """Measures how late a sleeping task is woken, and times the steps of all tasks.

    As an instrument it costs one call a step, some 0.2 µs; a step that does anything takes
    a hundred times that.

    Args:
        clock: measures steps, in seconds; by default it is the time that all have to wait.

    Attributes:
        long_steps: how many took too long.
        longest_step: of them all, in seconds.
        lags: every measurement since the start.

    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.long_steps = 0
        self.longest_step = 0.0
        self._clock = clock or perf_counter
        self.lags = Histogram()
        self._lags: deque[float] = deque(maxlen=KEPT)
        self._step_began = 0.0
        self._notable = 0.0  # a step that takes as much is the longest so far, or long

    @property
    def lag(self) -> float:
        """The last measurement, in seconds."""
        return self._lags[-1] if self._lags else 0.0

    @property
    def max_lag(self) -> float:
        """The worst of the last minute, in seconds."""
        return max(self._lags, default=0.0)

    def recent_lag(self) -> float:
        """Return the worst of the last ten seconds, in seconds."""
        return max(islice(reversed(self._lags), RECENT), default=0.0)

    async def run(self) -> None:
        """Measure until cancelled."""
        self._step_began = self._clock()
        trio.lowlevel.add_instrument(self)
        try:
            while True:
                due = trio.current_time() + INTERVAL_S
                await trio.sleep_until(due)
                lag = max(0.0, trio.current_time() - due)
                self._lags.append(lag)
                self.lags.record(lag)
        finally:
            trio.lowlevel.remove_instrument(self)

    @override
    def after_io_wait(self, timeout: float) -> None:
        """Note the time: the first step of a round begins now, the others where one ends."""
        self._step_began = self._clock()

    @override
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Record a step that took too long."""
        began, self._step_began = self._step_began, self._clock()
        took = self._step_began - began
        if took >= self._notable:
            self._note(task, took)

    def _note(self, task: trio.lowlevel.Task, took: float) -> None:
        self.longest_step = max(self.longest_step, took)
        self._notable = min(self.longest_step, LONG_STEP_S)
        if took >= LONG_STEP_S:
            self.long_steps += 1
            log.warning("a task held up the loop", task=task.name, took_ms=round(took * 1000))
