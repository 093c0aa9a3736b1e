"""The first stage: histories are shortened, the idlest first, and nobody else notices."""

from __future__ import annotations

import json

from tests.support.daemon import StartDaemon
from tests.support.flood import ANSWER_S, client_of, reading

EVENTS = 400
SIZE = 2000
"""A history of 0.9 MB: within what a session may keep."""


def history(name: str) -> list[str]:
    """Return the data of a session's events."""
    return [f"{name} {number} {'x' * SIZE}" for number in range(EVENTS)]


async def test_the_idlest_histories_go_first_and_live_subscribers_keep_their_order(
    start_daemon: StartDaemon, idle_mb: float
) -> None:
    daemon = start_daemon(
        memory={"warning_mb": idle_mb + 25, "critical_mb": idle_mb + 400, "recover_below": 0.99},
        log={"format": "json"},
    )
    async with client_of(daemon) as client, reading(daemon, "live", count=2) as live:
        names: list[str] = []
        told: list[str] = []
        state = "closed"
        while state == "closed" and len(names) < 300:
            names.append(f"s{len(names)}")
            await client.publish(names[-1], *history(names[-1]))
            told.append(f"after {names[-1]}")
            await client.publish("live", told[-1])
            state = (await client.health())["memory"]["breaker"]
        await client.until(lambda h: h["memory"]["breaker"] == "closed", within=60)
        listed = await client.sessions()
        for reader in live:
            await reader.until(lambda r: len(r.data) == len(told), within=ANSWER_S)
        async with reading(daemon, names[0]) as [late]:
            await late.until(lambda r: r.data[-1:] == history(names[0])[-1:], within=ANSWER_S)

    left = [listed[name]["retained_events"] if name in listed else 0 for name in names]
    shortened = [events < EVENTS for events in left]
    assert shortened[0]
    assert not shortened[-1]
    assert shortened == sorted(shortened, reverse=True), left
    assert late.data == history(names[0])[-left[0] :], "the newest are kept"
    for reader in live:
        assert reader.data == told
        assert reader.news == []


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
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(memory={"warning_mb": 10, "sample_interval": 0.1})
    async with client_of(daemon) as client, reading(daemon, "heard") as [reader]:
        for name in ("heard", "unheard-1", "unheard-2"):
            await client.publish(name, "a")
        await client.until(lambda h: h["sessions"] == 1, within=30)
        await client.publish("heard", "b")
        await reader.until(lambda r: r.data == ["a", "b"], within=ANSWER_S)
        again = await client.publish("unheard-1", "b")

    assert again.status == 200
    assert reader.news == []


async def test_a_subscriber_of_a_shortened_history_is_told_of_the_gap(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(memory={"warning_mb": 10, "sample_interval": 0.1})
    async with client_of(daemon) as client, reading(daemon, "s") as [reader]:
        reply = await client.publish("s", *history("s"))
        first = reply.json()["first_id"]
        await client.until(
            lambda h: h["memory"]["accounted_mb"] < 0.4 and h["memory"]["breaker"] == "warning",
            within=ANSWER_S,
        )
        await reader.until(lambda r: len(r.data) == EVENTS, within=ANSWER_S)
        async with reading(daemon, "s", cursor=first) as [late]:
            await late.until(lambda r: r.data[-1:] == history("s")[-1:], within=ANSWER_S)

    assert reader.data == history("s")
    gap, *rest = late.events
    assert gap.type == "gap"
    assert json.loads(gap.data) == {"asked": first, "oldest": rest[0].id}
    assert [event.data for event in rest] == history("s")[-len(rest) :]
    assert len(rest) < EVENTS / 2
