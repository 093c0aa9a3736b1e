"""Quotas: the streams and sessions of clients and subjects are counted exactly, come what may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
import trio
import trio.testing

from broadcasterd.access.grants import EVERYONE, Grant
from broadcasterd.access.tickets import MAX_TICKETS, MAX_TICKETS_PER_SUBJECT
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.relief import relieve
from broadcasterd.broadcast.session import Session
from broadcasterd.config import Limits, Memory, Sessions
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import TooMany
from broadcasterd.memory.breaker import MIB
from broadcasterd.memory.policy import Forget
from tests.support.broadcast import Recorder, drafts, in_force, make_hub, start_hub

ALICE, BOB = Grant(subject="alice"), Grant(subject="bob")
HERE = "127.0.0.1"


async def start(nursery: trio.Nursery, limits: Limits, **sessions: object) -> Hub:
    return await start_hub(nursery, make_hub(in_force(limits, **sessions)))


def check_counts(hub: Hub) -> None:
    """Count anew what there is, and compare."""
    clients = Counter(stream.peer for stream in hub.subscribers.by_id.values())
    subjects = Counter(s.subject for s in hub.subscribers.by_id.values() if s.subject is not None)
    openers = Counter(s.subject for s in hub.sessions.values() if s.subject is not None)
    shares = hub.quotas
    for tally, found in [
        (shares.streams_of_client, clients),
        (shares.streams_of_subject, subjects),
        (shares.sessions_of_subject, openers),
    ]:
        assert found == {key: tally[key] for key in found}
        assert len(found) == len(tally)


# --- streams ---------------------------------------------------------------------------------

Ways = dict[str, Callable[[Hub, Session, Recorder], None]]
WAYS: Ways = {
    "closed": lambda _, __, stream: stream.close(EndReason.CLIENT_GONE),
    "cut": lambda _, __, stream: stream.disconnect(EndReason.SLOW_CONSUMER),
    "finished": lambda _, __, stream: stream.finish(EndReason.DRAINING),
    "failed": lambda _, session, stream: session.failed(stream, RuntimeError("injected")),
    "all cut": lambda hub, _, __: hub.subscribers.disconnect(EndReason.DRAINING),
    "session closed": lambda hub, session, _: hub.end(session.name),
    "session forgotten": lambda hub, session, _: relieve(hub, [Forget(session.name)]),
    "session failed": lambda _, session, __: session.close(),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_is_counted_until_it_ends(way: str, nursery: trio.Nursery) -> None:
    hub = await start(nursery, Limits())
    session = hub.open("s", "alice")
    others = [Recorder(hub.open("other"), grant=grant) for grant in (ALICE, BOB, EVERYONE)]
    stream = Recorder(session, grant=ALICE)
    check_counts(hub)
    assert (4, 2, 1) == (
        hub.quotas.streams_of_client[HERE],
        hub.quotas.streams_of_subject["alice"],
        hub.quotas.streams_of_subject["bob"],
    )
    WAYS[way](hub, session, stream)
    await trio.testing.wait_all_tasks_blocked()

    assert stream.closed
    check_counts(hub)
    for other in others:
        other.close(EndReason.CLIENT_GONE)
    check_counts(hub)
    assert 0 == hub.quotas.streams_of_client[HERE]


async def test_a_stream_is_counted_out_once(nursery: trio.Nursery) -> None:
    hub = await start(nursery, Limits())

    stream = Recorder(hub.open("s"), grant=ALICE)
    session = hub.find("s")
    session.closed(stream, EndReason.CRASHED)
    session.closed(stream, EndReason.CRASHED)

    check_counts(hub)


@pytest.mark.parametrize(
    ("shares", "setting"),
    [
        (Limits(max_subscribers_per_address=2), "max_subscribers_per_address"),
        (Limits(max_subscribers_per_subject=2), "max_subscribers_per_subject"),
    ],
)
async def test_streams_that_were_admitted_at_the_same_time_find_the_share_taken(
    shares: Limits, setting: str, nursery: trio.Nursery
) -> None:
    hub = await start(nursery, shares)
    session = hub.open("s")
    assert hub.quotas.used_up_by_streams(HERE, "alice") is None
    streams = [Recorder(session, grant=ALICE) for _ in range(4)]

    assert setting == hub.quotas.used_up_by_streams(HERE, "alice")
    assert [False, False, True, True] == [stream.closed for stream in streams]
    assert streams[2].last_words is not None
    assert ("disconnect", EndReason.MEMORY) == streams[2].last_words[:2]
    streams[0].close(EndReason.CLIENT_GONE)
    assert hub.quotas.used_up_by_streams(HERE, "alice") is None
    check_counts(hub)


async def test_without_a_subject_only_the_address_counts(nursery: trio.Nursery) -> None:
    hub = await start(nursery, Limits(max_subscribers_per_subject=1, max_sessions_per_subject=1))
    for number in range(5):
        Recorder(hub.open(f"{number}"))

    assert hub.quotas.used_up_by_streams(HERE, None) is None
    assert hub.quotas.used_up_by_sessions(None) is None


# --- sessions --------------------------------------------------------------------------------


async def test_a_subject_opens_so_many_sessions(nursery: trio.Nursery) -> None:
    hub = await start(nursery, Limits(max_sessions_per_subject=2))
    hub.open("a", "alice")
    hub.open("b", "alice")
    hub.open("b", "bob")  # it was open: it stays hers
    with pytest.raises(TooMany, match="max_sessions_per_subject"):
        hub.open("c", "alice")
    assert "c" not in hub.sessions
    hub.open("c", "bob")

    assert hub.open("c", "alice") is hub.find("c")
    hub.end("a")
    hub.open("d", "alice")
    check_counts(hub)


async def test_a_session_is_counted_until_it_is_gone(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start(nursery, Limits(), session_ttl=100)
    for name in ("expires", "is closed", "is forgotten", "fails", "is closed, and opened anew"):
        await hub.open(name, "alice").publish(drafts("a"))
    assert 5 == hub.quotas.sessions_of_subject["alice"]
    hub.end("is closed")
    hub.end("is closed")
    relieve(hub, [Forget("is forgotten")])
    hub.find("fails")._inbox.send_nowait("no publication")  # type: ignore[arg-type] # it fails
    hub.end("is closed, and opened anew")
    hub.open("is closed, and opened anew", "bob")
    await trio.testing.wait_all_tasks_blocked()
    check_counts(hub)

    await trio.sleep(100)
    await hub.sweep()
    check_counts(hub)
    assert {"alice", "bob"} >= set(hub.quotas.sessions_of_subject._counts)


# --- publications ----------------------------------------------------------------------------

RATES = (
    (Limits(publish_rate=2, publish_burst=4), "publish_rate", {"events": 4, "size": 1}),
    (Limits(publish_rate_bytes=2, publish_burst_bytes=4), "publish_rate_bytes",
     {"events": 1, "size": 4}),
)  # fmt: skip


def a_wait(seconds: float, setting: str) -> object:
    return (pytest.approx(seconds), setting)


@pytest.mark.parametrize(("limits", "setting", "all_at_once"), RATES)
async def test_a_subject_publishes_at_its_rate(
    limits: Limits,
    setting: str,
    all_at_once: dict[str, int],
    autojump_clock: trio.testing.MockClock,
) -> None:
    quotas = make_hub(in_force(limits)).quotas
    assert quotas.wait("alice") is None
    assert quotas.take("alice", **all_at_once) is None
    assert quotas.wait("alice") == a_wait(0.5, setting)
    assert quotas.take("alice", **all_at_once) == a_wait(2.0, setting)
    assert quotas.take("bob", **all_at_once) is None
    await trio.sleep(2)

    assert quotas.take("alice", **all_at_once) is None


async def test_a_publication_that_one_rate_refuses_costs_nothing_of_the_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = Limits(publish_rate=1, publish_burst=4, publish_rate_bytes=1, publish_burst_bytes=4)
    quotas = make_hub(in_force(limits)).quotas
    assert quotas.take("alice", events=1, size=3) is None
    assert quotas.take("alice", events=1, size=3) == a_wait(2.0, "publish_rate_bytes")
    assert quotas.take("alice", events=3, size=0) is None
    assert quotas.take("alice", events=2, size=1) == a_wait(2.0, "publish_rate")

    assert quotas.take("alice", events=0, size=1) is None


async def test_without_a_subject_there_is_no_rate() -> None:
    limits = Limits(publish_rate=2, publish_burst=4, publish_rate_bytes=2, publish_burst_bytes=4)
    quotas = make_hub(in_force(limits)).quotas

    assert [None] * 100 == [quotas.take(None, events=1000, size=1000) for _ in range(100)]
    assert quotas.wait(None) is None


@pytest.mark.parametrize(("limits", "setting", "all_at_once"), RATES)
async def test_a_reload_forgives_no_debt(
    limits: Limits,
    setting: str,
    all_at_once: dict[str, int],
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = make_hub(in_force(limits))
    hub.quotas.take("alice", **all_at_once)
    twice_as_fast = msgspec.structs.replace(limits, **{setting: 4.0})
    hub.settings.replace(in_force(twice_as_fast).config)
    await hub.reconfigure(None)

    assert hub.quotas.take("alice", **all_at_once) == a_wait(1.0, setting)
    await trio.sleep(1)
    assert hub.quotas.take("alice", **all_at_once) is None


def test_by_default_no_subject_has_all_there_is() -> None:
    limits, sessions, memory = Limits(), Sessions(), Memory()

    assert limits.max_subscribers_per_subject < sessions.max_subscribers
    assert limits.max_sessions_per_subject < sessions.max_sessions
    assert limits.max_publishing_per_subject < limits.max_connections
    assert limits.max_pending_bytes_per_subject < memory.warning_mb * MIB
    assert MAX_TICKETS_PER_SUBJECT < MAX_TICKETS
