"""The cost of a publish, a subscribe and a delivery never grows unnoticed: counted, not timed.

How long something takes depends on the machine and on what else it does; how many system calls, how
many calls of functions and how much memory, hardly. So a regression fails here, within a minute,
where a benchmark would be lost in the noise; `make bench` says what a count is in microseconds.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.performance.costs import (
    SUBSCRIBERS,
    Work,
    blocks_held,
    deliver,
    function_calls,
    publish,
    publish_lines,
    publish_to_new_sessions,
    subscribe,
    system_calls_of,
)
from tests.performance.processes import Load
from tests.support.daemon import StartDaemon
from tests.support.inprocess import serving

pytestmark = pytest.mark.slow

# What each costs, measured. Whoever makes one cheaper writes the new count here. How many lines a
# system call brings depends on how they arrive.
SYSTEM_CALLS = {"publish": 5.0, "subscribe": 6.2, "delivery": 1.1}
FUNCTION_CALLS = {"publish": 322, "line": 48, "subscribe": 169, "delivery": 9}
BLOCKS_KEPT = {"subscriber": 7, "session": 39}

EVENT_BLOCKS = 0.3
"""A retained event has no block of its own: it is in the blocks of its session's log."""

MARGIN = 1.2
"""For other versions of Python and of the libraries, and for what a busy machine adds: a wait that
ends early, a timer that fires meanwhile."""

STALE = 0.6
"""Below this share of what the table says, the table would notice nothing any more."""

WORK = {
    "publish": Work(publish, few=20, many=220),
    "line": Work(publish_lines, few=1000, many=5000),
    "subscribe": Work(subscribe, few=20, many=120),
    "delivery": Work(deliver, few=10, many=60, each=SUBSCRIBERS),
}
KEPT = {
    "subscriber": Work(subscribe, few=20, many=120),
    "session": Work(publish_to_new_sessions, few=20, many=120),
}
# Its answer to a first request imports, compiles and caches.
WARM_UP = 5


def check(cost: float, said: float) -> None:
    """Compare with the table."""
    assert cost <= said * MARGIN, "it has become more expensive"
    assert cost >= said * STALE, "it has become cheaper: write that into the table"


def warm_up(load: Load) -> None:
    publish(load, WARM_UP)
    publish_lines(load, WARM_UP)
    subscribe(load, WARM_UP)
    load.do("close")


@pytest.mark.parametrize("name", SYSTEM_CALLS)
def test_system_calls(name: str, start_daemon: StartDaemon, tmp_path: Path) -> None:
    work = WORK[name]
    daemon = start_daemon()
    totals = []
    with Load(daemon.port) as load:
        warm_up(load)
        if name == "delivery":
            load.do("open", session="crowd", count=SUBSCRIBERS)
        for times in (work.few, work.many):
            with system_calls_of(daemon.pid, tmp_path) as count:
                work.do(load, times)
            totals.append(count.total)

    check(work.marginal(*totals), SYSTEM_CALLS[name])


@pytest.mark.parametrize("name", WORK)
async def test_function_calls(name: str) -> None:
    work = WORK[name]
    totals = []
    async with serving() as daemon:
        with Load(daemon.port) as load:
            await trio.to_thread.run_sync(warm_up, load)
            if name == "delivery":
                await trio.to_thread.run_sync(
                    lambda: load.do("open", session="crowd", count=SUBSCRIBERS)
                )
            for times in (work.few, work.many):
                with function_calls() as count:
                    await trio.to_thread.run_sync(work.do, load, times)
                totals.append(count.total)

    check(work.marginal(*totals), FUNCTION_CALLS[name])


@pytest.mark.parametrize("name", KEPT)
async def test_memory_kept(name: str) -> None:
    check(await kept_by(KEPT[name]), BLOCKS_KEPT[name])


async def test_an_event_keeps_no_block_of_its_own() -> None:
    assert await kept_by(Work(publish, few=20, many=220)) <= EVENT_BLOCKS


async def kept_by(work: Work) -> float:
    """Return the blocks of memory that one keeps."""
    async with serving() as daemon:
        with Load(daemon.port) as load:
            await trio.to_thread.run_sync(warm_up, load)
            await trio.to_thread.run_sync(work.do, load, work.few)
            before = await blocks_held()
            await trio.to_thread.run_sync(work.do, load, work.many)
            return (await blocks_held() - before) / work.many
