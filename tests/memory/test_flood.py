"""A flood, three times over, as the bound, the publishers, the subscribers and the log see it.

One daemon, one episode, recorded; each test looks at one side of it. The flood publishes 2 KB
events into new sessions without a pause, whatever it is answered.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import pytest
import trio

from broadcasterd.memory.trend import STEP_S
from tests.support.daemon import Daemon, Launch
from tests.support.flood import (
    ANSWER_S,
    CYCLE_S,
    PATIENCE_S,
    Client,
    Flood,
    Health,
    Memory,
    Reader,
    client_of,
    flood,
    new_sessions,
    pressed,
    read_answer,
    reading,
    subscribe,
    transitions,
)
from tests.support.http1 import Answer

log = logging.getLogger(__name__)

FLOOD_S = float(os.environ.get("BROADCASTERD_TEST_FLOOD_S", "0.5"))
"""How long the first flood lasts. 60 shows what the issue asks for to the letter."""

NEXT_FLOODS_S = 0.3
EVENTS = 6
"""In each publication of a flood. That is less than a warning shortens, and sooner too much than it
may be forgotten: so each flood opens the breaker, after as many publications on any machine."""

REFUSALS = 200

OVER_CRITICAL = 1.1
SAME_MB = 8.0
"""What the ends of three cycles may be apart."""

PUBLISH_S = 0.05
LAGGARD_EVENTS = 400


@dataclass(slots=True)
class Cycle:
    """A flood, and what came after it."""

    flood: Flood
    peak_mb: float
    half_open: Counter[int]
    closed_after_s: float
    closed: Health
    end_mb: float


@dataclass(slots=True)
class Episode:
    """All that was seen."""

    warning_mb: float
    critical_mb: float
    pids: set[int] = field(default_factory=set)
    cycles: list[Cycle] = field(default_factory=list)
    healths: list[tuple[int, Health]] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)  # of the session "live", in order
    refused_live: int = 0
    live: list[Reader] = field(default_factory=list)
    quiet: list[Reader] = field(default_factory=list)
    laggard: list[Reader] = field(default_factory=list)
    resumed: list[Reader] = field(default_factory=list)
    idle_session_left: list[bool] = field(default_factory=list)
    streamed: Answer | None = None
    streamed_to: list[Reader] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""


class Recorder:
    """Runs the episode against a daemon."""

    def __init__(self, daemon: Daemon, episode: Episode) -> None:
        self._daemon = daemon
        self._episode = episode
        self._memory = Memory(daemon)

    async def run(self) -> None:
        """Run it."""
        episode, daemon = self._episode, self._daemon
        async with (
            client_of(daemon) as client,
            reading(daemon, "live", count=3) as episode.live,
            reading(daemon, "quiet", count=2) as episode.quiet,
            reading(daemon, "stream") as episode.streamed_to,
            trio.open_nursery() as nursery,
        ):
            await client.publish("idle", *["y" * 1000] * 100)
            episode.laggard = [await self._stall(client)]
            nursery.start_soon(self._publish_live)
            nursery.start_soon(self._stream)
            nursery.start_soon(self._poll_health)
            nursery.start_soon(self._read_on, episode.laggard[0])
            for number in range(3):
                await self._cycle(client, number)
            await client.publish("quiet", "still here")
            for reader in episode.quiet:
                await reader.until(lambda r: r.data, within=ANSWER_S)
            await self._resume(episode.laggard[0])
            for reader in episode.live:
                await reader.until(self._has_all, within=ANSWER_S)
            nursery.cancel_scope.cancel()

    async def _cycle(self, client: Client, number: int) -> None:
        self._memory.reset()
        seconds = NEXT_FLOODS_S if number else FLOOD_S
        requests = new_sessions(f"flood{number}", events=EVENTS)
        seen = await flood(self._daemon, requests, seconds=seconds, refusals=REFUSALS)
        ended_at = trio.current_time()
        sessions = await client.sessions()
        self._episode.idle_session_left.append("idle" in sessions)
        await client.until_breaker("half-open", "closed")
        half_open = await self._ask_while_half_open(client)
        closed = await client.until_breaker("closed")
        self._episode.cycles.append(
            Cycle(
                flood=seen,
                peak_mb=self._memory.peak_mb,
                half_open=half_open,
                closed_after_s=trio.current_time() - ended_at,
                closed=closed,
                end_mb=self._memory.now_mb,
            )
        )
        self._episode.pids.add(self._daemon.pid)

    async def _ask_while_half_open(self, client: Client) -> Counter[int]:
        """Publish fifty times; count the answers, unless the breaker has moved on meanwhile."""
        answers = Counter([(await client.publish("half", "x")).status for _ in range(50)])
        still = (await client.health())["memory"]["breaker"] == "half-open"
        return answers if still else Counter()

    async def _publish_live(self) -> None:
        async with client_of(self._daemon) as client:
            number = 0
            while True:
                text = f"{number} {'l' * 200}"
                reply = await client.publish("live", text)
                if reply.status == 200:
                    self._episode.acknowledged.append(text)
                else:
                    self._episode.refused_live += 1
                number += 1
                await trio.sleep(PUBLISH_S)

    async def _stream(self) -> None:
        """Publish line after line in one request, until it is answered."""
        async with await trio.open_tcp_stream("127.0.0.1", self._daemon.port) as connection:

            async def send() -> None:
                await connection.send_all(
                    b"POST /v1/sessions/stream/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for number in count():
                    line = b'{"data":"%d"}\n' % number
                    await connection.send_all(b"%x\r\n%b\r\n" % (len(line), line))
                    await trio.sleep(PUBLISH_S)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                self._episode.streamed = await read_answer(connection)
                nursery.cancel_scope.cancel()

    async def _poll_health(self) -> None:
        async with client_of(self._daemon) as client:
            while True:
                reply = await client.ask("GET", "/health")
                self._episode.healths.append((reply.status, reply.json()))
                await trio.sleep(0.1)

    async def _stall(self, client: Client) -> Reader:
        """Subscribe, and leave more unread than sockets take."""
        reader = await subscribe(self._daemon, "stalled", receive_buffer=4096)
        await client.until(lambda h: h["subscribers"] == 7, within=ANSWER_S)
        await client.publish("stalled", *[f"{n} {'z' * 2000}" for n in range(LAGGARD_EVENTS)])
        return reader

    async def _read_on(self, reader: Reader) -> None:
        """Read on when the breaker has opened: a minute later the kernel would have given up."""
        async with client_of(self._daemon) as client:
            await client.until_breaker("open", within=FLOOD_S + PATIENCE_S)
        await reader.run()
        reader.hang_up()

    async def _resume(self, reader: Reader) -> None:
        with trio.fail_after(ANSWER_S):
            await reader.ended.wait()
        async with (
            client_of(self._daemon) as client,
            reading(self._daemon, "stalled", cursor=reader.cursor) as [again],
        ):
            await client.publish("stalled", "afterwards")
            await again.until(lambda r: "afterwards" in r.data, within=ANSWER_S)
            self._episode.resumed = [again]

    def _has_all(self, reader: Reader) -> bool:
        return bool(reader.data) and reader.data[-1] == self._episode.acknowledged[-1]


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory, launch: Launch, idle_mb: float) -> Episode:
    """Live through it once."""
    memory = pressed(idle_mb, critical=40, warning=25)
    seen = Episode(memory["warning_mb"], memory["critical_mb"])
    daemon = Daemon.start(
        tmp_path_factory.mktemp("flood"),
        launch,
        memory=memory,
        log={"format": "json"},
        # The laggard shall not be ended for being slow, before there is any pressure.
        sessions={"max_lag_events": 5000},
    )
    try:
        trio.run(Recorder(daemon, seen).run)
    finally:
        daemon.stop_cleanly()
    seen.records = transitions(daemon)
    seen.log = daemon.log()
    for cycle in seen.cycles:
        log.info(
            "critical %.1f MB, peak %.1f (%.3f), answers %s, closed after %.1f s, end %.1f MB",
            seen.critical_mb,
            cycle.peak_mb,
            cycle.peak_mb / seen.critical_mb,
            dict(cycle.flood.answers),
            cycle.closed_after_s,
            cycle.end_mb,
        )
    return seen


# --- the bound -----------------------------------------------------------------------------------


def test_memory_never_passes_the_critical_threshold_by_more_than_a_tenth(episode: Episode) -> None:
    peaks = [cycle.peak_mb for cycle in episode.cycles]

    assert max(peaks) <= episode.critical_mb * OVER_CRITICAL, (peaks, episode.critical_mb)


def test_each_flood_was_one(episode: Episode) -> None:
    for cycle in episode.cycles:
        assert cycle.peak_mb > episode.critical_mb * 0.98
        assert cycle.flood.answers[200] > 500
        assert set(cycle.flood.answers) == {200, 503}


def test_it_is_closed_and_below_the_warning_within_half_a_minute(episode: Episode) -> None:
    for cycle in episode.cycles:
        assert cycle.closed_after_s < CYCLE_S
        assert cycle.closed["memory"]["rss_mb"] < episode.warning_mb


def test_the_cycles_end_with_the_same_memory(episode: Episode) -> None:
    ends = [cycle.end_mb for cycle in episode.cycles]

    assert max(ends) - min(ends) < SAME_MB, ends


def test_nothing_was_restarted(episode: Episode) -> None:
    uptimes = [health["uptime_s"] for _, health in episode.healths]

    assert len(episode.pids) == 1
    assert uptimes == sorted(uptimes)


# --- publishers ----------------------------------------------------------------------------------


def test_publishers_are_told_to_come_back(episode: Episode) -> None:
    for cycle in episode.cycles:
        assert cycle.flood.answers[503] > 0
        assert cycle.flood.without_retry_after == 0


def test_of_a_half_open_breaker_a_tenth_passes(episode: Episode) -> None:
    seen = [cycle.half_open for cycle in episode.cycles if cycle.half_open]

    assert seen, "it was closed again too soon to be asked, each time"
    for answers in seen:
        # The live session's publisher asks meanwhile, and takes its share.
        assert set(answers) == {200, 503}
        assert 1 <= answers[200] <= 12


def test_events_are_accepted_again_afterwards(episode: Episode) -> None:
    assert episode.refused_live > 0
    for reader in episode.quiet:
        assert reader.data == ["still here"]


def test_a_publisher_that_streams_is_stopped_and_told_what_was_accepted(episode: Episode) -> None:
    reply = episode.streamed
    assert reply is not None

    accepted = reply.json()["accepted"]
    assert reply.status == 503
    assert reply.headers["retry-after"].isdecimal()
    assert accepted > 0
    assert episode.streamed_to[0].data == [str(number) for number in range(accepted)]


# --- subscribers ---------------------------------------------------------------------------------


def test_live_subscribers_get_every_accepted_event_in_order_and_stay(episode: Episode) -> None:
    numbers = [int(text.split()[0]) for text in episode.acknowledged]

    assert numbers[-1] >= len(numbers), "none was refused in between"
    for reader in episode.live:
        assert reader.data == episode.acknowledged
        assert reader.news == []
        assert not reader.whole


def test_subscribers_to_whom_nothing_is_sent_stay(episode: Episode) -> None:
    for reader in episode.quiet:
        assert reader.news == []


def test_a_subscriber_that_does_not_read_is_ended_and_resumes(episode: Episode) -> None:
    [reader], [again] = episode.laggard, episode.resumed
    got = [int(text.split()[0]) for text in reader.data]

    assert got == list(range(len(got)))
    assert len(got) < LAGGARD_EVENTS
    [end] = [json.loads(news.data) for news in reader.news]
    # Which it is depends on who comes first: the breaker, or the warning that gives its events up.
    assert end["reason"] in {"memory", "slow_consumer"}
    assert end["reconnect"]
    # Its events were given up meanwhile: it is told so, and where it goes on.
    assert [event.type for event in again.events[:1]] == ["broadcaster.gap"]
    assert json.loads(again.events[0].data)["asked"] == reader.cursor
    assert again.data == ["afterwards"]


def test_a_history_that_nobody_reads_is_given_up(episode: Episode) -> None:
    assert episode.idle_session_left == [False, False, False]


# --- what operators see --------------------------------------------------------------------------


def test_every_transition_is_one_record_and_no_state_is_skipped(episode: Episode) -> None:
    path = [record["before"] for record in episode.records] + [episode.records[-1]["after"]]
    allowed = {
        ("closed", "warning"),
        ("warning", "closed"),
        ("warning", "open"),
        ("open", "half-open"),
        ("half-open", "open"),
        ("half-open", "closed"),
    }

    for before, after in pairwise(episode.records):
        assert before["after"] == after["before"]
    assert set(pairwise(path)) <= allowed
    assert path[0] == path[-1] == "closed"
    assert path.count("open") >= 3
    for record in episode.records:
        assert record["level"] == "warning"
        assert {"used_mb", "counted_mb", "sessions", "streams", "timestamp"} <= set(record)


def test_records_and_health_agree_on_the_states(episode: Episode) -> None:
    seen = [health["memory"]["breaker"] for _, health in episode.healths]
    path = [record["after"] for record in episode.records]

    changes = [after for before, after in pairwise(seen) if before != after]
    remaining = iter(path)
    assert all(change in remaining for change in changes), (changes, path)
    assert {"open", "half-open", "closed"} <= set(seen)


def test_health_is_503_while_it_is_open_and_only_then(episode: Episode) -> None:
    for status, health in episode.healths:
        is_open = health["memory"]["breaker"] == "open"
        assert (status == 503) == is_open
        assert (health["status"] == "unhealthy") == is_open
    assert "degraded" in {health["status"] for _, health in episode.healths}


def test_health_answers_all_along(episode: Episode) -> None:
    uptimes = [health["uptime_s"] for _, health in episode.healths]

    assert max(after - before for before, after in pairwise(uptimes)) < 5


def test_health_shows_the_trend_of_the_last_minutes(episode: Episode) -> None:
    trend = episode.healths[-1][1]["memory"]["trend"]
    steps = int(episode.healths[-1][1]["uptime_s"] / STEP_S)

    assert len(trend["used_mb"]) >= max(2, steps - 1)
    assert all(20 < figure < episode.critical_mb * OVER_CRITICAL for figure in trend["used_mb"])
    assert isinstance(trend["mb_per_minute"], float)
    first = next(h for _, h in episode.healths if len(h["memory"]["trend"]["used_mb"]) >= 2)
    assert first["memory"]["trend"]["mb_per_minute"] != 0


def test_health_shows_the_thresholds_in_force(episode: Episode) -> None:
    for _, health in episode.healths:
        assert health["memory"]["warning_mb"] == pytest.approx(episode.warning_mb, abs=0.1)
        assert health["memory"]["critical_mb"] == pytest.approx(episode.critical_mb, abs=0.1)


def test_neither_events_nor_failures_are_in_the_log(episode: Episode) -> None:
    assert "xxxxxxxx" not in episode.log
    assert '"level": "error"' not in episode.log
