"""Deadlines of scopes that were left: Trio forgets them when it is asked to."""

from __future__ import annotations

import weakref
from math import inf

import trio
import trio.testing

from broadcasterd.broadcast.deadlines import forget_stale_deadlines

FAR_S = 1000.0


async def left_behind(count: int) -> weakref.WeakSet[trio.CancelScope]:
    """Enter and leave scopes with a deadline."""
    left: weakref.WeakSet[trio.CancelScope] = weakref.WeakSet()
    for _ in range(count):
        with trio.move_on_after(FAR_S) as scope:  # noqa: ASYNC100 - it is left at once
            left.add(scope)
        del scope
    return left


async def test_scopes_that_were_left_are_kept_until_they_are_forgotten() -> None:
    left = await left_behind(800)
    await trio.lowlevel.checkpoint()
    assert 800 == len(left), "there is nothing to mend any more"

    forget_stale_deadlines()
    await trio.lowlevel.checkpoint()

    assert 0 == len(left)


async def test_so_they_are_among_many_that_wait(nursery: trio.Nursery) -> None:
    for _ in range(600):
        nursery.start_soon(trio.sleep, FAR_S)
    left = await left_behind(800)
    forget_stale_deadlines()
    await trio.testing.wait_all_tasks_blocked()

    assert 0 == len(left)
    nursery.cancel_scope.cancel()


async def test_who_waits_goes_on_waiting() -> None:
    with trio.move_on_after(FAR_S) as scope:
        forget_stale_deadlines()
        await trio.lowlevel.checkpoint()

        assert 0 < trio.lowlevel.current_statistics().seconds_to_next_deadline <= FAR_S
        assert scope.deadline < inf
        assert not scope.cancel_called
