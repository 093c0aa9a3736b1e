"""No leak, in less than a minute: work that is repeated does not take more and more memory.

The slope of a line through the memory after each cycle is judged, not one threshold: a threshold
tells a small leak from none only after hours.
"""

from __future__ import annotations

import logging

import pytest
import trio

from tests.support.daemon import Daemon, StartDaemon
from tests.support.flood import (
    ANSWER_S,
    ASKING_MB,
    Client,
    Health,
    Memory,
    client_of,
    files_and_threads,
    reading,
    slope,
    subscribe,
)

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

WARM_UP = 15
"""Cycles until the allocator has the pages that it goes on with."""

CYCLES = 20
SESSIONS = 25
EVENTS = 10

LEAK_BYTES = 1024
"""What is left of each session of a cycle, at most: a stream alone, or two events, is more."""


async def a_cycle(daemon: Daemon, client: Client, number: int) -> None:
    """Do all that there is to do: open, publish, read, stop reading, resume, refuse, end."""
    for index in range(SESSIONS):
        name = f"cycle-{number}-{index}"
        await client.publish(name, *[f"{n} {'x' * 500}" for n in range(EVENTS)])
        async with reading(daemon, name) as [reader]:
            await reader.until(lambda r: len(r.data) == EVENTS, within=ANSWER_S)
        async with reading(daemon, name, cursor=reader.events[3].id) as [again]:
            await again.until(lambda r: len(r.data) == EVENTS - 4, within=ANSWER_S)
        stopped = await subscribe(daemon, name, receive_buffer=4096)
        stopped.hang_up()
        await client.ask("POST", f"/v1/sessions/{name}/events", b"{not json")
        await client.ask("GET", f"/v1/sessions/{name}/nothing")
        await client.ask("DELETE", f"/v1/sessions/{name}")
    await client.until(lambda h: h["sessions"] == h["subscribers"] == 0, within=ANSWER_S)


async def test_memory_after_each_cycle_does_not_grow_with_their_number(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"max_sessions": 100}, log={"level": "warning"})
    memory = Memory(daemon)
    ends: list[float] = []
    async with client_of(daemon) as client:
        for number in range(WARM_UP + CYCLES):
            await a_cycle(daemon, client, number)
            ends.append(memory.own_mb)
        await client.until(lambda h: h["memory"]["accounted_mb"] == ASKING_MB, within=ANSWER_S)

    grown = slope(ends[WARM_UP:]) * 1024 * 1024 / SESSIONS
    log.info("%.0f bytes a session and cycle; after each, MB: %s", grown, ends)
    assert grown < LEAK_BYTES, ends


async def test_files_and_threads_are_no_more_afterwards_than_before(daemon: Daemon) -> None:
    def are_no_more(_: Health) -> bool:  # what a start has left may be gone by then
        return all(now <= then for now, then in zip(files_and_threads(daemon), before, strict=True))

    async with client_of(daemon) as client:
        await client.health()
        before = files_and_threads(daemon)
        await a_cycle(daemon, client, 0)
        await client.until(are_no_more, within=ANSWER_S)


# --- the four of the old suite -------------------------------------------------------------------


async def test_a_session_of_ten_events(daemon: Daemon) -> None:
    await _grows_less_than(10, daemon, sessions=1, events=10)


async def test_five_sessions_one_after_another(daemon: Daemon) -> None:
    await _grows_less_than(15, daemon, sessions=5, events=20)


async def test_a_hundred_events_to_names_that_nobody_listens_to(daemon: Daemon) -> None:
    memory = Memory(daemon)
    before = memory.now_mb
    async with client_of(daemon) as client:
        for number in range(100):
            assert (await client.publish(f"unknown-{number}", "x" * 100)).status == 200
        health = await client.health()

    assert memory.peak_mb - before < 20
    assert health["sessions"] == 100
    assert health["memory"]["accounted_mb"] < 1


async def test_ten_workers_at_once(daemon: Daemon) -> None:
    memory = Memory(daemon)
    before = memory.now_mb

    async def work(number: int) -> None:
        name = f"worker-{number}"
        async with client_of(daemon) as client, reading(daemon, name) as [reader]:
            for index in range(10):
                assert (await client.publish(name, str(index))).status == 200
            await reader.until(lambda r: len(r.data) == 10, within=ANSWER_S)

            assert reader.data == [str(index) for index in range(10)]

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(work, number)
    async with client_of(daemon) as client:
        await client.until(lambda h: h["subscribers"] == 0, within=ANSWER_S)

    assert memory.peak_mb - before < 25


async def _grows_less_than(megabytes: float, daemon: Daemon, *, sessions: int, events: int) -> None:
    memory = Memory(daemon)
    before = memory.now_mb
    async with client_of(daemon) as client:
        for number in range(sessions):
            data = [f"{index} {'x' * 100}" for index in range(events)]
            async with reading(daemon, f"s{number}") as [reader]:
                for text in data:
                    await client.publish(f"s{number}", text)
                await reader.until(lambda r: len(r.data) == events, within=ANSWER_S)

            assert reader.data == data
        await client.until(lambda h: h["subscribers"] == 0, within=ANSWER_S)

    assert memory.peak_mb - before < megabytes
