"""The first stage: histories are shortened, the idlest first, and nobody else notices.

Where what is needed has to be known, histories are published first, and the thresholds are put
below what the daemon then has: so they are right on every machine.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.flood import (
    ANSWER_S,
    FAR,
    MIB,
    Client,
    Reader,
    client_of,
    come_too_near,
    reading,
    transitions,
)
from tests.support.talk import publish, target

EVENTS = 400
SIZE = 2000
"""A history of 0.9 MB: within what a session may keep."""

AT_MOST = 1.5
"""The promise: bytes of history that go, for each byte that there is too much."""

ROUNDED_MB = 0.05
"""By so much less than there was may be in a record, which tells tenths."""

WATCHED_S = 5.0
"""Long enough for several steps: one takes a second."""

ROOM: dict[str, dict[str, Any]] = {
    "sessions": {"max_history_bytes": 8 * MIB},
    "log": {"format": "json"},
}


@pytest.fixture(scope="module", autouse=True)
def long_in_warning(
    tmp_path_factory: pytest.TempPathFactory, launch: Launch
) -> Iterator[tuple[Daemon, socket.socket]]:
    """Start a daemon in warning, with a session that is heard and two that are not.

    These count as used for a quarter of a minute: meanwhile there are the other tests.
    """
    memory = {"warning_mb": 10, "sample_interval": 0.1}
    daemon = Daemon.start(tmp_path_factory.mktemp("daemon"), launch, memory=memory)
    try:
        with socket.create_connection(("127.0.0.1", daemon.port)) as listener:
            request = f"GET {target('heard')} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            listener.sendall(request.encode())
            for name in ("heard", "unheard-1", "unheard-2"):
                publish(daemon, name, "a")
            yield daemon, listener
    finally:
        daemon.stop_cleanly()


def history(name: str, events: int = EVENTS, size: int = SIZE) -> list[str]:
    """Return the data of a session's events."""
    return [f"{name} {number} {'x' * size}" for number in range(events)]


def needed_mb(daemon: Daemon, recover_mb: float) -> float:
    """Return by how much the daemon found itself above ``recover``."""
    [warning] = [record for record in transitions(daemon) if record["after"] == "warning"]
    return float(warning["used_mb"]) + ROUNDED_MB - recover_mb


async def history_mb(client: Client) -> float:
    """Return the megabytes that all sessions retain."""
    listed = await client.sessions()
    retained: int = sum(session["retained_bytes"] for session in listed.values())
    return retained / MIB


@pytest.mark.parametrize(("sessions", "parts", "events"), [(100, 1, 25), (30, 1, 80), (6, 5, 80)])
async def test_no_more_history_goes_than_is_needed_and_live_subscribers_keep_their_order(
    sessions: int, parts: int, events: int, start_daemon: StartDaemon
) -> None:
    """Histories of 0.25, 0.8 and 4 MB; the idlest of them go first."""
    daemon = start_daemon(**ROOM, memory=FAR)
    names = [f"s{number}" for number in range(sessions)]
    told = [f"after {name}" for name in names] + ["in warning"]
    async with client_of(daemon) as client, reading(daemon, "live", count=2) as live:
        for name, word in zip(names, told, strict=False):
            for _ in range(parts):
                await client.publish(name, *history(name, events, size=10_000))
            await client.publish("live", word)
        before_mb = await history_mb(client)
        recover_mb = await come_too_near(daemon, client, ROOM, need_mb=before_mb / 4)
        await client.until_breaker("warning", within=ANSWER_S)
        await client.publish("live", told[-1])
        await client.until(lambda h: h["memory"]["breaker"] == "closed", within=60)
        listed = await client.sessions()
        gone_mb = before_mb - await history_mb(client)
        for reader in live:
            await reader.until(lambda r: len(r.data) == len(told), within=ANSWER_S)
        left = [listed[name]["retained_events"] for name in names]
        async with reading(daemon, names[0]) as [late]:
            await late.until(lambda r: len(r.data) == left[0], within=ANSWER_S)

    assert 0 < gone_mb <= AT_MOST * needed_mb(daemon, recover_mb)
    shortened = [count < parts * events for count in left]
    assert shortened == sorted(shortened, reverse=True), left
    published = history(names[0], events, size=10_000) * parts
    assert late.data == published[-left[0] :], "the newest are kept"
    for reader in live:
        assert reader.data == told
        assert reader.news == []


async def test_no_more_small_events_go_than_are_needed(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(**ROOM, memory=FAR)
    async with client_of(daemon) as client:
        for _ in range(4):
            for number in range(120):
                await client.publish(f"s{number}", *history("s", 100, size=100))
        before_mb = await history_mb(client)
        recover_mb = await come_too_near(daemon, client, ROOM, need_mb=before_mb / 4)
        await client.until_breaker("warning", within=ANSWER_S)
        await client.until(  # or what requests had left behind was enough
            lambda h: (
                h["memory"]["breaker"] == "closed"
                or h["memory"]["accounted_mb"] < before_mb - 1 / 4
            ),
            within=ANSWER_S,
        )
        await trio.sleep(WATCHED_S)
        gone_mb = before_mb - await history_mb(client)

    assert gone_mb <= AT_MOST * needed_mb(daemon, recover_mb)


async def test_publishers_and_subscribers_are_welcome_in_warning(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(memory={"warning_mb": 10, "sample_interval": 0.1})
    async with client_of(daemon) as client:
        await client.until_breaker("warning", within=ANSWER_S)
        async with reading(daemon, "s") as [reader]:
            reply = await client.publish("s", "a", "b")
            whole = await client.ask("GET", "/health")
            await reader.until(lambda r: r.data == ["a", "b"], within=ANSWER_S)

    assert reply.status == 200
    assert whole.status == 200
    assert whole.json()["status"] == "degraded"


async def test_a_session_that_nobody_needs_is_forgotten_and_one_with_a_listener_stays(
    long_in_warning: tuple[Daemon, socket.socket],
) -> None:
    daemon, listener = long_in_warning
    reader = Reader(trio.SocketStream(trio.socket.from_stdlib_socket(listener)))
    async with client_of(daemon) as client, trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        await client.until(lambda h: h["sessions"] == 1, within=30)
        await client.publish("heard", "b")
        await reader.until(lambda r: r.data == ["a", "b"], within=ANSWER_S)
        again = await client.publish("unheard-1", "b")
        nursery.cancel_scope.cancel()

    assert again.status == 200
    assert reader.news == []


async def test_a_subscriber_of_a_shortened_history_is_told_of_the_gap(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(memory=FAR)
    async with client_of(daemon) as client, reading(daemon, "s") as [reader]:
        reply = await client.publish("s", *history("s"))
        first = reply.json()["first_id"]
        await reader.until(lambda r: len(r.data) == EVENTS, within=ANSWER_S)
        daemon.reload(memory={"warning_mb": 10, "sample_interval": 0.1})
        await client.until(
            lambda h: h["memory"]["accounted_mb"] < 0.4 and h["memory"]["breaker"] == "warning",
            within=ANSWER_S,
        )
        async with reading(daemon, "s", cursor=first) as [late]:
            await late.until(lambda r: r.data[-1:] == history("s")[-1:], within=ANSWER_S)

    assert reader.data == history("s")
    assert reader.news == []
    gap, *rest = late.events
    assert gap.type == "broadcaster.gap"
    assert json.loads(gap.data) == {"asked": first, "oldest": rest[0].id}
    assert [event.data for event in rest] == history("s")[-len(rest) :]
    assert len(rest) < EVENTS / 2
