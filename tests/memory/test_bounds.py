"""The bounds of each history, and of the number of everything: with no pressure at all."""

from __future__ import annotations

import json

from broadcasterd.core.history import MAPPING_BYTES, MIN_SEGMENT_BYTES
from broadcasterd.memory.policy import SESSION_BYTES
from tests.support.daemon import StartDaemon
from tests.support.flood import (
    ANSWER_S,
    ASKING_BYTES,
    CYCLE_S,
    Client,
    Flood,
    Health,
    Reader,
    client_of,
    new_sessions,
    reading,
)


async def publish_each(client: Client, session: str, *data: str) -> None:
    """Publish events, one a request."""
    for item in data:
        reply = await client.publish(session, item)

        assert reply.status == 200, reply


def numbers(count: int, *, padding: int = 0) -> list[str]:
    """Return the data of so many events."""
    return [f"{number} {'x' * padding}" for number in range(count)]


# --- histories -----------------------------------------------------------------------------------


async def test_a_history_keeps_no_more_events_than_allowed(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(sessions={"max_history_events": 50})
    async with client_of(daemon) as client:
        await client.publish("s", *numbers(130))
        await publish_each(client, "s", "last")
        listed = await client.session("s")
        async with reading(daemon, "s") as [reader]:
            await reader.until(lambda r: "last" in r.data, within=ANSWER_S)

    assert listed["retained_events"] == 50
    assert reader.data == [*numbers(130)[-49:], "last"]


async def test_a_history_keeps_no_more_bytes_than_allowed(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(sessions={"max_history_bytes": 20_000})
    async with client_of(daemon) as client:
        for some in range(10):
            await client.publish("s", *numbers(400, padding=10 * some))
            listed = await client.session("s")

            assert listed["retained_bytes"] <= 20_000
            assert listed["retained_bytes"] > 18_000, "more than an event's room is left"
        async with reading(daemon, "s") as [reader]:
            await reader.until(lambda r: len(r.data) == listed["retained_events"], within=ANSWER_S)

    assert reader.data == numbers(400, padding=90)[-listed["retained_events"] :]


async def test_a_history_keeps_no_event_past_its_age(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(sessions={"event_ttl": 0.5, "cleanup_interval": 0.1})
    async with client_of(daemon) as client:
        before = await client.health()
        await client.publish("s", *numbers(500, padding=1000))
        full = await client.health()
        gone = await client.until(
            lambda h: h["memory"]["accounted_mb"] < full["memory"]["accounted_mb"] / 10,
            within=ANSWER_S,
        )
        listed = await client.session("s")

    assert full["memory"]["accounted_mb"] > before["memory"]["accounted_mb"] + 0.5
    assert gone["sessions"] == 1, "only its events are gone"
    assert (listed["retained_events"], listed["retained_bytes"]) == (0, 0)


# --- sessions ------------------------------------------------------------------------------------


async def test_publishing_to_unknown_names_makes_no_more_sessions_than_allowed(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"max_sessions": 20})
    seen = Flood()
    async with client_of(daemon) as client:
        requests = new_sessions()
        for _ in range(100):
            session, body, _ = next(requests)
            seen.note(await client.ask("POST", f"/v1/sessions/{session}/events", body))
        known = await client.publish("flood-3", "known")
        health = await client.health()

    assert seen.answers == {200: 20, 503: 80}
    assert seen.without_retry_after == 0
    assert known.status == 200
    assert health["sessions"] == 20
    assert health["status"] == "healthy"


async def test_publishing_to_unknown_names_takes_no_more_bytes_than_they_may_have(
    start_daemon: StartDaemon,
) -> None:
    limits = {"max_sessions": 20, "max_history_bytes": 100_000}
    daemon = start_daemon(sessions=limits)
    async with client_of(daemon) as client:
        for number in range(30):
            await client.publish(f"s{number}", *numbers(400, padding=1000))
        health = await client.health()
        listed = await client.sessions()

    most = limits["max_sessions"] * (limits["max_history_bytes"] + SESSION_BYTES)
    retained = sum(session["retained_bytes"] for session in listed.values())
    segments = limits["max_history_bytes"] // MIN_SEGMENT_BYTES + 1
    mappings = limits["max_sessions"] * segments * MAPPING_BYTES
    assert health["memory"]["accounted_mb"] * 2**20 <= most + mappings + ASKING_BYTES + 1024
    assert most * 0.9 < retained + 20 * SESSION_BYTES <= most


async def test_sessions_past_their_time_make_room_again(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(sessions={"max_sessions": 10, "session_ttl": 2, "cleanup_interval": 0.1})
    async with client_of(daemon) as client:
        base = await client.health()

        def is_as_before(health: Health) -> bool:
            accounted = (each["memory"]["accounted_mb"] for each in (health, base))
            return health["sessions"] == 0 and len({*accounted}) == 1

        for _ in range(2):
            answers = [(await client.publish(f"s{n}", "x")).status for n in range(12)]

            assert answers[:10] == [200] * 10
            assert answers[10:] == [503] * 2
            # Its log goes with a session's task: in the next step, not in the same one.
            await client.until(is_as_before, within=ANSWER_S)


async def test_no_more_names_of_closed_sessions_are_remembered_than_sessions_allowed(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"max_sessions": 10})
    async with client_of(daemon) as client:
        for number in range(30):
            await client.publish(f"s{number}", "x")
            await client.ask("DELETE", f"/v1/sessions/s{number}")
        remembered = [
            number
            for number in range(30)
            if (await client.ask("DELETE", f"/v1/sessions/s{number}")).status == 204
        ]

    assert remembered == list(range(20, 30))


# --- subscribers ---------------------------------------------------------------------------------


def was_told_to_come_back(reader: Reader) -> bool:
    """Whether a subscriber got no stream but the reason, in a form that an EventSource takes."""
    [end] = reader.events
    return (
        reader.status == 200
        and end.type == "broadcaster.end"
        and json.loads(end.data) == {"reason": "memory", "reconnect": True}
        and end.id == ""
        and reader.ended.is_set()
    )


async def test_no_more_streams_are_open_than_allowed(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(sessions={"max_subscribers": 5})
    async with client_of(daemon) as client, reading(daemon, "s", count=3) as some:
        async with reading(daemon, "other", count=2), reading(daemon, "s") as [late]:
            await late.until(lambda r: r.ended.is_set(), within=ANSWER_S)
            refused = await client.ask("GET", "/v1/sessions/s/events?overload=status")

            assert was_told_to_come_back(late)
            assert refused.status == 503
            assert refused.headers["retry-after"].isdecimal()
        await client.until(lambda h: h["subscribers"] == 3, within=ANSWER_S)
        await client.publish("s", "still here")
        for reader in some:
            await reader.until(lambda r: r.data == ["still here"], within=ANSWER_S)


async def test_no_more_streams_of_one_session_are_open_than_allowed(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"max_subscribers_per_session": 2})
    async with client_of(daemon) as client:
        async with reading(daemon, "s", count=2), reading(daemon, "other", count=2):
            async with reading(daemon, "s") as [late]:
                await late.until(lambda r: r.ended.is_set(), within=ANSWER_S)

                assert was_told_to_come_back(late)
            assert (await client.health())["subscribers"] == 4
        await client.until(lambda h: h["subscribers"] == 0, within=CYCLE_S)
        async with reading(daemon, "s", count=2):
            assert (await client.health())["subscribers"] == 2
