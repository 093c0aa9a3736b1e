"""No memory management: the daemon says so, and sheds nothing, whatever memory that takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.flood import ANSWER_S, client_of, reading

TINY: Mapping[str, Any] = {"warning_mb": 5, "critical_mb": 10, "sample_interval": 0.05}

WAYS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "the configuration": ({"breaker": False}, {}),
    "the legacy switch": ({"breaker": True}, {"USE_LEGACY_BROADCASTER": "true"}),
    "the environment": ({}, {"BROADCASTERD_MEMORY__BREAKER": "false"}),
}
"""Settings of ``[memory]`` and the environment."""


@pytest.fixture(scope="module", params=WAYS)
def unmanaged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, launch: Launch
) -> Iterator[Daemon]:
    """Start a daemon that has too much from the start, and is not to care."""
    memory, environment = WAYS[request.param]
    daemon = Daemon.start(
        tmp_path_factory.mktemp("daemon"),
        launch,
        environment=environment,
        memory={**TINY, **memory},
        log={"format": "json"},
    )
    yield daemon
    daemon.stop_cleanly()


async def test_health_and_the_log_say_that_it_is_off(unmanaged: Daemon) -> None:
    async with client_of(unmanaged) as client:
        reply = await client.ask("GET", "/health")
        # A thread of its own writes the records.
        await client.until(lambda _: "breaker is off" in unmanaged.log(), within=ANSWER_S)
    records = [json.loads(line) for line in unmanaged.log().splitlines() if line.startswith("{")]

    assert reply.json()["memory"]["breaker"] == "off"
    assert reply.json()["memory"]["warning_mb"] == 5
    warnings = [record["event"] for record in records if record["level"] == "warning"]
    assert 1 == sum("breaker is off" in warning for warning in warnings)


async def test_health_still_judges_what_is_used(unmanaged: Daemon) -> None:
    async with client_of(unmanaged) as client:
        reply = await client.ask("GET", "/health")

    assert reply.json()["status"] == "unhealthy"
    assert reply.status == 503


async def test_nothing_is_refused_or_shed(unmanaged: Daemon) -> None:
    async with client_of(unmanaged) as client, reading(unmanaged, "s0") as [reader]:
        for number in range(20):
            reply = await client.publish(f"s{number}", *["x" * 1000] * 100)

            assert reply.status == 200
        first = await client.sessions()
        # Of samples that would have acted, several have been.
        began = (await client.health())["uptime_s"]
        await client.until(lambda h: h["uptime_s"] > began + 0.5, within=ANSWER_S)
        listed = await client.sessions()
        await reader.until(lambda r: len(r.data) == 100, within=ANSWER_S)

    assert {name: s["retained_events"] for name, s in listed.items()} == {
        f"s{number}": 100 for number in range(20)
    }
    assert first.keys() == listed.keys()


async def test_the_bounds_of_sessions_stay(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        memory={**TINY, "breaker": False}, sessions={"max_history_events": 10, "max_sessions": 3}
    )
    async with client_of(daemon) as client:
        answers = [(await client.publish(f"s{n}", *range(50))).status for n in range(5)]
        listed = await client.sessions()

    assert answers == [200, 200, 200, 503, 503]
    assert [session["retained_events"] for session in listed.values()] == [10, 10, 10]
