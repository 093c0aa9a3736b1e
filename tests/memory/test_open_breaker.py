"""The answers to the world while the breaker is open.

The thresholds are below the memory of the daemon at its start, so that the breaker opens with the
first sample and stays open.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import trio

from tests.support.daemon import Daemon, Launch
from tests.support.flood import (
    ANSWER_S,
    ASKING_MB,
    Flood,
    Memory,
    client_of,
    flood,
    new_sessions,
    reading,
)
from tests.support.talk import connected

OPENED_S = 10.0

SOME_REFUSALS, REFUSALS = 500, 3000
"""Until nothing is new, and then: if each left 4 KB, it would be told."""

KINDS = ["application/json", "application/x-ndjson", "text/event-stream", "text/plain"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Iterator[Daemon]:
    """Start a daemon that has too much from the start."""
    daemon = Daemon.start(
        tmp_path_factory.mktemp("open"),
        launch,
        memory={"warning_mb": 5, "critical_mb": 10, "sample_interval": 0.1},
    )
    try:
        trio.run(_wait_until_open, daemon)
        yield daemon
    finally:
        daemon.stop_cleanly()


async def _wait_until_open(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        await client.until_breaker("open", within=OPENED_S)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_publisher_is_refused_before_its_body_is_sent(daemon: Daemon, kind: str) -> None:
    async with connected(daemon) as client:
        await client.begin(
            "POST", "/v1/sessions/s/events", {"Content-Type": kind, "Content-Length": "1000000"}
        )
        refusal = await client.answer()

    assert refusal.status == 503
    assert refusal.headers["retry-after"].isdecimal()
    assert refusal.headers["content-type"] == "application/problem+json"
    assert "memory" in str(refusal.json()["detail"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_publisher_that_sends_its_body_all_the_same_is_told(
    daemon: Daemon, kind: str
) -> None:
    async with client_of(daemon) as client:
        body = b"x" * 1_000_000
        refusal = await client.ask("POST", "/v1/sessions/s/events", body, content_type=kind)
        health = await client.until(  # its connection, and that of a test before, are going
            lambda h: h["memory"]["accounted_mb"] == ASKING_MB, within=ANSWER_S
        )

    assert refusal.status == 503
    assert health["sessions"] == 0


async def test_a_subscriber_is_told_to_come_back_in_a_way_that_a_browser_understands(
    daemon: Daemon,
) -> None:
    async with reading(daemon, "s") as [reader]:
        await reader.until(lambda r: r.ended.is_set(), within=ANSWER_S)

    [end] = reader.events
    assert reader.status == 200
    assert end.type == "broadcaster.end"
    assert json.loads(end.data) == {"reason": "memory", "reconnect": True}


async def test_those_who_are_told_to_come_back_do_not_come_back_together(daemon: Daemon) -> None:
    delays = set()
    async with client_of(daemon) as client:
        for _ in range(10):
            body = (await client.ask("GET", "/v1/sessions/s/events")).body
            delays |= {line for line in body.splitlines() if line.startswith(b"retry: ")}

    assert len(delays) > 5
    assert all(3000 <= int(delay.removeprefix(b"retry: ")) <= 6000 for delay in delays)


async def test_a_program_that_asks_for_the_status_gets_it(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        refusal = await client.ask("GET", "/v1/sessions/s/events?overload=status")

    assert refusal.status == 503
    assert refusal.headers["retry-after"].isdecimal()


async def test_health_says_that_it_is_open_and_life_goes_on(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        whole = await client.ask("GET", "/health")
        live = await client.ask("GET", "/health/live")
        listing = await client.ask("GET", "/v1/sessions")
        missing = await client.ask("DELETE", "/v1/sessions/s")

    assert whole.status == 503
    assert whole.json()["status"] == "unhealthy"
    assert whole.json()["memory"]["breaker"] == "open"
    assert live.status == 200
    assert listing.status == 200
    assert missing.status == 404


async def test_publishers_that_are_refused_again_and_again_cost_nothing(daemon: Daemon) -> None:
    seen = Flood()
    await flood(daemon, new_sessions(), seconds=0, refusals=SOME_REFUSALS, into=seen)
    memory = Memory(daemon)
    before = memory.now_mb
    await flood(daemon, new_sessions(), seconds=0, refusals=REFUSALS, into=seen)

    assert set(seen.answers) == {503}
    assert seen.without_retry_after == 0
    assert memory.now_mb - before < 6
