"""Memory and order when much happens at once: a real daemon, real sockets, exact delivery.

Five scenarios; load at a steady pace is in test_memory_sustained_load.py. In each of them every
event has to arrive, once and in order, at every subscriber that it is for.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest
import trio

from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.flood import (
    ANSWER_S,
    ASKING_MB,
    CYCLE_S,
    MIB,
    Flood,
    Memory,
    Reader,
    Request,
    client_of,
    flood,
    idle_mb_of,
    pressed,
    reading,
    subscribe,
)

pytestmark = pytest.mark.slow

PUBLISHERS = 50
EACH = 200

WAVES = 3
WAVE_SESSIONS = 500

VISITS = 150
RESUMED = 2500
"""Visits in all, and events over all visits of the one who comes back, however long they take."""

STALLED = 1000

CYCLES = 3
PUBLISH_S = 0.05
UNSHORTENED = 3500
"""Characters: four events of them are too little for a warning to shorten, so that each flood comes
to the critical threshold, after as many publications on any machine."""

SAME_MB = 8.0
WARNING_MB, CRITICAL_MB = 25, 40
"""The thresholds, above an idle daemon."""


# --- 1: many publishers on one session -----------------------------------------------------------


async def test_fifty_publishers_of_two_hundred_events_on_one_session(
    start_daemon: StartDaemon,
) -> None:
    total = PUBLISHERS * EACH
    daemon = start_daemon(
        sessions={
            "max_history_events": total,
            "max_history_bytes": 16 * MIB,
            "max_lag_events": total,
        }
    )

    async def publish(number: int) -> None:
        data = [f"{number} {index} {'x' * 100}" for index in range(EACH)]
        async with client_of(daemon) as client:
            await client.publish_all("s", data, at_once=(1, 2, 5, 10, 20)[number % 5])

    async with client_of(daemon) as client, reading(daemon, "s", count=3) as live:
        async with trio.open_nursery() as publishers:
            for number in range(PUBLISHERS):
                publishers.start_soon(publish, number)
        for reader in live:
            await reader.until(lambda r: len(r.data) == total, within=ANSWER_S)
        async with reading(daemon, "s") as [late]:
            await late.until(lambda r: len(r.data) == total, within=ANSWER_S)
        listed = await client.session("s")

    assert listed["retained_events"] == total
    for reader in [*live, late]:
        assert reader.events == live[0].events, "all see the same order"
        assert reader.news == []
    for number in range(PUBLISHERS):
        mine = [int(text.split()[1]) for text in late.data if text.startswith(f"{number} ")]
        assert mine == list(range(EACH)), "each publisher's order is kept"


# --- 2: sessions that come and go ----------------------------------------------------------------


async def test_five_hundred_sessions_opened_and_expired_in_waves(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(sessions={"session_ttl": 1, "cleanup_interval": 0.2})
    ends: list[float] = []
    memory = Memory(daemon)
    async with client_of(daemon) as client:
        await client.until(lambda h: h["memory"]["accounted_mb"] == ASKING_MB, within=ANSWER_S)
        for wave in range(WAVES):
            async with trio.open_nursery() as nursery:
                for part in range(4):
                    nursery.start_soon(_open_sessions, daemon, wave, part)
            # Its log goes with a session's task: in the next step, not in the same one.
            await client.until(
                lambda h: (h["sessions"], h["memory"]["accounted_mb"]) == (0, ASKING_MB),
                within=CYCLE_S,
            )
            ends.append(memory.now_mb)

    assert max(ends[1:]) - ends[0] < SAME_MB, ends


async def _open_sessions(daemon: Daemon, wave: int, part: int) -> None:
    async with client_of(daemon) as client:
        for number in range(part, WAVE_SESSIONS, 4):
            reply = await client.publish(f"wave-{wave}-{number}", *["x" * 500] * 4)

            assert reply.status == 200


# --- 3: subscribers that come and go -------------------------------------------------------------


async def test_subscribers_join_and_leave_all_the_time_during_a_flood(  # noqa: C901 (a task each)
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(
        sessions={
            "max_history_events": 50_000,
            "max_history_bytes": 64 * MIB,
            "max_lag_events": 50_000,
        }
    )
    accepted: list[str] = []
    visits: list[list[str]] = []
    resumed: list[str] = []
    everyone_left = trio.Event()

    async def publish() -> None:
        async with client_of(daemon) as client:
            while not everyone_left.is_set():
                some = [f"{len(accepted) + n} {'x' * 300}" for n in range(10)]
                reply = await client.publish("s", *some)

                assert reply.status == 200
                accepted.extend(some)

    async def visit() -> None:
        """Join for a moment, from wherever it is now; leave without a word."""
        while len(visits) < VISITS:
            async with reading(daemon, "s", "?from=now") as [reader]:
                await reader.until(lambda r: len(r.data) >= 30, within=ANSWER_S)
                visits.append(reader.data)

    async def come_back() -> None:
        """Leave again and again, and go on where it was."""
        cursor: str | None = None
        while len(resumed) < RESUMED:
            async with reading(daemon, "s", cursor=cursor) as [reader]:
                await reader.until(lambda r: len(r.data) >= 50, within=ANSWER_S)
                resumed.extend(reader.data)
                cursor = reader.cursor

    async with client_of(daemon) as client, reading(daemon, "s", count=2) as live:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            async with trio.open_nursery() as visitors:
                visitors.start_soon(come_back)
                for _ in range(10):
                    visitors.start_soon(visit)
            everyone_left.set()
        for reader in live:
            await reader.until(lambda r: len(r.data) == len(accepted), within=ANSWER_S)
        left = await client.until(lambda h: h["subscribers"] == 2, within=ANSWER_S)

    assert left["sessions"] == 1
    for reader in live:
        assert reader.data == accepted
        assert reader.news == []
    assert resumed == accepted[: len(resumed)], "each once, over all its visits"
    for data in visits:
        first = int(data[0].split()[0])
        assert data == accepted[first : first + len(data)]


# --- 4: readers that stop ------------------------------------------------------------------------


async def test_a_thousand_readers_that_stop_reading_cost_nothing(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"max_lag_events": 100_000}, log={"level": "warning"})
    memory = Memory(daemon)
    stopped: list[Reader] = []
    data = [f"{number} {'x' * 1000}" for number in range(1500)]
    try:
        async with client_of(daemon) as client, reading(daemon, "s", count=2) as live:
            stopped += [await subscribe(daemon, "s", receive_buffer=4096) for _ in range(STALLED)]
            await client.until(lambda h: h["subscribers"] == STALLED + 2, within=CYCLE_S)
            before_mb = memory.now_mb
            await client.publish_all("s", data, at_once=20)
            for reader in live:
                await reader.until(lambda r: len(r.data) == len(data), within=CYCLE_S)
            health = await client.health()
            listed = await client.session("s")
            after_mb = memory.now_mb
            # Those whose place in the log is gone are ended, and told: here are three of them.
            for reader in stopped[:3]:
                with trio.fail_after(ANSWER_S):
                    await reader.run()
    finally:
        for reader in stopped:
            reader.hang_up()

    history_mb = listed["retained_bytes"] / MIB
    # What is left of a frame is a part of the log's own; beside the log, a slow reader has none.
    assert after_mb - before_mb < history_mb + 6, (before_mb, after_mb)
    assert health["memory"]["breaker"] == "closed"
    for reader in live:
        assert reader.data == data
    for reader in stopped[:3]:
        got = [int(text.split()[0]) for text in reader.data]
        assert got == list(range(len(got)))
        assert [json.loads(end.data)["reason"] for end in reader.news] == ["slow_consumer"]
        assert reader.whole


# --- 5: pressure, three times over ---------------------------------------------------------------


@pytest.fixture(scope="module")
def idle_mb(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> float:
    """Measure an idle daemon."""
    return idle_mb_of(tmp_path_factory.mktemp("idle"), launch)


def bodies_of_all_kinds(prefix: str) -> Iterator[Request]:
    """Yield publications of every kind of body, each to a session of its own."""
    text = "x" * UNSHORTENED
    kinds = [
        ("application/json", json.dumps([{"data": text}] * 4)),
        ("application/json", json.dumps({"data": text, "idempotency_key": "k", "ttl": 60})),
        ("application/x-ndjson", (json.dumps({"data": {"text": text}}) + "\n") * 4),
        ("text/event-stream", f"event: e\ndata: {text}\n\n" * 4),
        ("text/plain", "\n".join([text] * 4)),
    ]
    for number in itertools.count():
        kind, body = kinds[number % len(kinds)]
        yield f"{prefix}-{number}", body.encode(), kind


async def test_pressure_to_critical_and_back_three_times_over(
    start_daemon: StartDaemon, idle_mb: float
) -> None:
    daemon = start_daemon(memory=pressed(idle_mb, critical=CRITICAL_MB, warning=WARNING_MB))
    memory = Memory(daemon)
    ends: list[float] = []
    accepted: list[str] = []
    async with client_of(daemon) as client, reading(daemon, "live", count=3) as live:
        pid = daemon.pid
        for cycle in range(CYCLES):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_publish_meanwhile, daemon, accepted, nursery)
                seen: Flood = await flood(
                    daemon,
                    bodies_of_all_kinds(f"c{cycle}"),
                    publishers=6,
                    seconds=0.3,
                    refusals=100,
                )
                await client.until_breaker("closed")
                nursery.cancel_scope.cancel()
            ends.append(memory.now_mb)

            assert set(seen.answers) == {200, 503}
            assert seen.without_retry_after == 0
        assert (await client.publish("live", "end")).status == 200
        for reader in live:
            await reader.until(lambda r: r.data[-1:] == ["end"], within=ANSWER_S)
        assert daemon.pid == pid
        assert daemon.process.poll() is None

    assert memory.peak_mb <= (idle_mb + CRITICAL_MB) * 1.1
    assert max(ends) - min(ends) < SAME_MB, ends
    assert max(ends) < idle_mb + WARNING_MB
    for reader in live:
        assert reader.data[:-1] == accepted
        assert reader.news == []


async def _publish_meanwhile(daemon: Daemon, accepted: list[str], nursery: trio.Nursery) -> None:
    async with client_of(daemon) as client:
        while True:
            text = f"live {len(accepted)}"
            with trio.CancelScope(shield=True):  # an event whose answer nobody saw may be there
                reply = await client.publish("live", text)
            if reply.status == 200:
                accepted.append(text)
            await trio.sleep(PUBLISH_S)
