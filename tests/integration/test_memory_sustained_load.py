"""Memory and order under load that goes on and on: each event arrives once and in order."""

from __future__ import annotations

import json

import pytest
import trio

from tests.support.daemon import Daemon
from tests.support.flood import ANSWER_S, MIB, Memory, client_of, reading

pytestmark = pytest.mark.slow


async def test_fifty_sessions_of_a_hundred_events_each_to_its_own_subscriber(
    daemon: Daemon,
) -> None:
    memory = Memory(daemon)
    before_mb = memory.now_mb
    seen: dict[int, list[str]] = {}

    async def session(number: int) -> None:
        data = [f"{number} {index} {'x' * 100}" for index in range(100)]
        name = f"s{number}"
        async with client_of(daemon) as client, reading(daemon, name) as [reader]:
            await client.publish_all(name, data, at_once=1 if number % 10 == 0 else 20)
            await reader.until(lambda r: len(r.data) == 100, within=ANSWER_S)

            assert reader.data == data
            seen[number] = reader.data

    async with client_of(daemon) as client:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(session, number)
        health = await client.until(lambda h: h["subscribers"] == 0, within=ANSWER_S)

    assert len(seen) == 50
    assert health["sessions"] == 50
    assert memory.peak_mb - before_mb < 100


async def test_sustained_cycles_leave_exactly_what_is_retained(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        for cycle in range(5):
            before = daemon.rss()
            for number in range(20):
                data = ["x" * 50] * 50
                await client.publish_all(f"c{cycle}-{number}", data, at_once=50)
            listed = await client.sessions()

            assert sum(s["retained_events"] for s in listed.values()) == (cycle + 1) * 20 * 50
            assert daemon.rss() - before < 20 * MIB
        await client.until(lambda h: h["subscribers"] == 0, within=ANSWER_S)


async def test_five_pipelines_of_four_stages_report_to_those_who_watch(daemon: Daemon) -> None:
    stages = ["build", "test", "deploy", "verify"]

    async def pipeline(number: int) -> None:
        name = f"pipeline-{number}"
        expected: list[dict[str, object]] = []
        async with client_of(daemon) as client, reading(daemon, name, count=2) as watching:
            for stage in stages:
                events: list[dict[str, object]] = [
                    {
                        "pipeline_id": name,
                        "stage": stage,
                        "index": index,
                        "status": "completed" if index == 24 else "running",
                        "logs": f"{stage} step {index} of 25: " + "." * 100,
                    }
                    for index in range(25)
                ]
                for event in events[:5]:
                    assert (await client.publish(name, event)).status == 200
                assert (await client.publish(name, *events[5:])).status == 200
                expected += events
            for reader in watching:
                await reader.until(lambda r: len(r.data) == 100, within=ANSWER_S)

                assert [json.loads(text) for text in reader.data] == expected

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(pipeline, number)
    async with client_of(daemon) as client:
        await client.until(lambda h: h["subscribers"] == 0, within=ANSWER_S)
