"""The figures of /health about memory are true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from broadcasterd.core.history import MAPPING_BYTES
from broadcasterd.memory.holdings import STREAM_BYTES
from broadcasterd.memory.policy import SESSION_BYTES
from tests.support.daemon import Daemon, Launch, StartDaemon, execute
from tests.support.flood import (
    ANSWER_S,
    ASKING_BYTES,
    ASKING_MB,
    MIB,
    client_of,
    reading,
    subscribe,
)
from tests.support.forkserver import ForkServer

ROUNDED_MB = 0.001


@pytest.fixture(scope="module")
def launch() -> Launch:
    """Start as a shell does those whose resident memory counts from the first byte on."""
    return execute


@pytest.fixture
def daemon(tmp_path: Path, fork_server: ForkServer) -> Iterator[Daemon]:
    """Start a daemon quickly, where what its process takes from the start is no matter."""
    daemon = Daemon.start(tmp_path, fork_server.fork)
    yield daemon
    daemon.stop_cleanly()


async def test_the_accounted_bytes_are_the_sum_of_the_parts(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        for number in range(30):
            await client.publish(f"s{number}", *["x" * 100 * number] * 7)
        async with reading(daemon, "s1", count=4), reading(daemon, "empty"):
            health = await client.until(lambda h: h["subscribers"] == 5, within=ANSWER_S)
            listed = await client.sessions()

    parts = sum(session["retained_bytes"] for session in listed.values())
    assert sum(session["subscribers"] for session in listed.values()) == 5
    assert len(listed) == health["sessions"] == 31
    expected = parts + 31 * SESSION_BYTES + 5 * STREAM_BYTES + ASKING_BYTES
    beside = health["memory"]["accounted_mb"] - expected / MIB
    assert -ROUNDED_MB <= beside <= 31 * MAPPING_BYTES / MIB + ROUNDED_MB, "one each at the most"


async def test_what_is_let_go_is_no_longer_accounted(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        await client.until(lambda h: h["memory"]["accounted_mb"] == ASKING_MB, within=ANSWER_S)
        for number in range(20):
            await client.publish(f"s{number}", *["x" * 5000] * 20)
        async with reading(daemon, "s1", count=3):
            full = (await client.health())["memory"]["accounted_mb"]
        for number in range(20):
            await client.ask("DELETE", f"/v1/sessions/s{number}")
        await client.until(lambda h: h["memory"]["accounted_mb"] == ASKING_MB, within=ANSWER_S)

    assert full > 2


async def test_a_body_that_is_on_its_way_is_accounted(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
        await stream.send_all(
            b"POST /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: text/plain\r\nContent-Length: 900000\r\n\r\n" + b"x" * 500_000
        )
        held = await client.until(lambda h: h["memory"]["accounted_mb"] > 0.4, within=ANSWER_S)
        await stream.aclose()
        await client.until(lambda h: h["memory"]["accounted_mb"] == ASKING_MB, within=ANSWER_S)

    assert held["memory"]["accounted_mb"] < 0.6


async def test_a_write_that_was_cut_short_is_accounted(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        reader = await subscribe(daemon, "s", receive_buffer=4096)
        await client.until(lambda h: h["subscribers"] == 1, within=ANSWER_S)
        await client.publish("s", *["x" * 100_000] * 8)
        health = await client.health()
        listed = await client.session("s")
        reader.hang_up()

    logged = listed["retained_bytes"] + SESSION_BYTES + STREAM_BYTES + ASKING_BYTES
    pending = health["memory"]["accounted_mb"] * MIB - logged
    assert 0 < pending < 110_000 + 8 * MAPPING_BYTES, "what is left of one frame"


async def test_the_resident_memory_is_that_of_the_process(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        await client.publish("s", *["x" * 2000] * 400)
        health = await client.health()

    assert health["memory"]["rss_mb"] == pytest.approx(daemon.rss() / MIB, abs=3)
    assert health["memory"]["used_mb"] >= health["memory"]["rss_mb"]


async def test_what_is_accounted_is_what_it_costs(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    async with client_of(daemon) as client:
        before = await client.health()
        for number in range(40):
            await client.publish(f"s{number}", *[f"{n} {'x' * 2000}" for n in range(400)])
        after = await client.health()

    accounted = after["memory"]["accounted_mb"] - before["memory"]["accounted_mb"]
    resident = after["memory"]["rss_mb"] - before["memory"]["rss_mb"]
    assert accounted > 30
    assert 0.8 * accounted < resident < 1.5 * accounted


async def test_an_open_session_costs_what_is_accounted_for_it(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    count = 2000
    async with client_of(daemon) as client:
        for _ in range(200):  # what requests leave behind is there before it is measured
            await client.publish("s", "x")
        before = daemon.rss()
        for number in range(count):
            await client.publish(f"s{number}", "x")
        each = (daemon.rss() - before) / count

    assert 0.7 * SESSION_BYTES < each < 1.3 * SESSION_BYTES


async def test_the_default_thresholds_are_those_of_the_contract(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        memory = (await client.health())["memory"]

    limit = memory.get("cgroup_limit_mb", float("inf"))
    assert memory["warning_mb"] == pytest.approx(min(200, limit * 0.5), abs=0.1)
    assert memory["critical_mb"] == pytest.approx(min(500, limit * 0.8), abs=0.1)
    assert memory["breaker"] == "closed"
