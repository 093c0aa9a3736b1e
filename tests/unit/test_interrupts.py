"""Waits that end early: each by the cause that it names, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import trio
import trio.testing

from broadcasterd.access.grants import Grant
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.interrupts import Interrupts

ME = Grant("me")

Wait = Callable[[Interrupts], AbstractContextManager[trio.CancelScope]]
WAITS: dict[str, Wait] = {
    "drain": lambda interrupts: interrupts.until_drain(),
    "memory": lambda interrupts: interrupts.until_short_of_memory(),
    "my grant": lambda interrupts: interrupts.until_expired(ME),
    "another's": lambda interrupts: interrupts.until_expired(Grant("other")),
    "nobody's": lambda interrupts: interrupts.until_expired(Grant()),
}
HAPPENS: dict[str, Callable[[Interrupts], None]] = {
    "drain": lambda interrupts: interrupts.drain(),
    "memory": lambda interrupts: interrupts.short_of_memory(),
    "my grant": lambda interrupts: interrupts.revoke({"me"}),
}


@pytest.mark.parametrize("what", HAPPENS)
@pytest.mark.parametrize("wait", WAITS)
async def test_a_wait_is_ended_by_what_it_names(what: str, wait: str) -> None:
    interrupts = Interrupts(Clock())
    with WAITS[wait](interrupts) as scope:
        HAPPENS[what](interrupts)

        assert scope.cancel_called == (what == wait)


@pytest.mark.parametrize("what", HAPPENS)
async def test_what_has_ended_is_forgotten(what: str) -> None:
    interrupts = Interrupts(Clock())
    with WAITS[what](interrupts) as scope:
        pass
    HAPPENS[what](interrupts)

    assert not scope.cancel_called


async def test_while_it_drains_no_wait_for_that_begins() -> None:
    interrupts = Interrupts(Clock())
    interrupts.drain()
    with interrupts.until_drain() as scope:
        assert scope.cancel_called


async def test_a_wait_ends_when_its_grant_expires(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = Clock(wall=lambda: 1764000000.0 + trio.current_time())
    started = trio.current_time()
    with Interrupts(clock).until_expired(Grant(expires_at=clock.unix_now() + 60)) as wait:
        await trio.sleep(3600)

    assert wait.cancelled_caught
    assert trio.current_time() - started == pytest.approx(60, abs=0.001)
