"""The longest step of a Trio run, in work rather than in time: the same on a slow machine.

The loop watch measures it by the processor time of the thread, so that what others do to the
machine in between does not count; and it is told in units of a fixed piece of work, so that the
machine's own speed does not count either.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import thread_time

import trio

from broadcasterd.observe.looplag import LoopWatch

UNIT_ADDITIONS = 36_000
"""A unit of work: so many additions, which take a millisecond on a machine of today."""

LONGEST_STEP_UNITS = 20.0
"""No step takes longer: everybody waits for it."""


def unit_s() -> float:
    """Return what a unit of work takes here, in seconds."""
    return min(_timed_unit() for _ in range(20))


def _timed_unit() -> float:
    began = thread_time()
    total = 0
    for number in range(UNIT_ADDITIONS):
        total += number
    return thread_time() - began


@asynccontextmanager
async def watched() -> AsyncIterator[LoopWatch]:
    """Watch the steps of all tasks while inside.

    The garbage of other tests is not collected meanwhile: whichever step that falls into.
    """
    watch = LoopWatch(thread_time)
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            yield watch
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()
