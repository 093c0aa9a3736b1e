"""The contract of an engine, which each of them passes: what was kept is there after the end.

A test has an engine run, ends it, and has another one load what was kept.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.port import (
    Dropped,
    Ended,
    Engine,
    HandedOver,
    KeptEvent,
    Opened,
    Revoked,
    Trimmed,
)
from broadcasterd.engine.sqlite import SqliteEngine
from broadcasterd.figures.counts import Counts
from tests.support.engines import INCARNATION, Loaded, events_of, session_of

MakeEngine = Callable[[], Engine]


@pytest.fixture(params=["sqlite"])
def make_engine(request: pytest.FixtureRequest, tmp_path: Path) -> MakeEngine:
    """Return what makes an engine; each has what those before it kept."""
    return lambda: SqliteEngine(tmp_path / "events.sqlite", time.time, Counts())


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[tuple[Engine, Loaded]]:
    """Run an engine that has been loaded."""
    loaded = Loaded()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load(loaded)
        yield engine, loaded
        nursery.cancel_scope.cancel()


async def test_events_come_back_in_order_with_numbers_times_ttls_and_keys(
    make_engine: MakeEngine,
) -> None:
    first = [EncodedEvent(b"a"), EncodedEvent(b"b", 2.5), EncodedEvent(b"c", None, "key")]
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")))
        placed = await engine.append("s", INCARNATION, 1, 2000.0, first)
        await engine.append("s", INCARNATION, 4, 2001.0, events_of("d"))
    async with running(make_engine()) as (_, loaded):
        kept = loaded.events["s"]

    assert [*placed.seqs] == [1, 2, 3]
    assert not placed.duplicates
    assert [each.seq for each in kept] == [1, 2, 3, 4]
    assert [each.at for each in kept] == [2000.0, 2000.0, 2000.0, 2001.0]
    assert [each.event for each in kept] == [*first, EncodedEvent(b"d")]


async def test_a_session_comes_back_as_it_was(make_engine: MakeEngine) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")))
        await engine.append("s", INCARNATION, 1, 2000.0, events_of("a", "b"))
    async with running(make_engine()) as (_, loaded):
        session = loaded.sessions["s"]

    assert (session.incarnation, session.subject) == (INCARNATION, "somebody")
    assert (session.opened_at, session.floor, session.last) == (1000.0, 0, 2)


async def test_a_subject_may_be_no_text_of_unicode(make_engine: MakeEngine) -> None:
    subject = "half a pair: \ud83d"
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(replace(session_of("s"), subject=subject)), Revoked(subject, 1000.0))
        await engine.settled()
    async with running(make_engine()) as (_, loaded):
        assert loaded.sessions["s"].subject == subject
        assert loaded.revoked == {subject: 1000.0}


async def test_a_session_without_events_comes_back(make_engine: MakeEngine) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")))
        await engine.settled()
    async with running(make_engine()) as (_, loaded):
        assert loaded.sessions == {"s": session_of("s")}


async def test_what_many_sessions_bring_at_once_is_kept_of_each(make_engine: MakeEngine) -> None:
    names = [f"s{n}" for n in range(200)]

    async def publish(engine: Engine, name: str) -> None:
        engine.note(Opened(session_of(name)))
        for seq in range(1, 4):
            await engine.append(name, INCARNATION, seq, 2000.0, events_of(f"{name} {seq}"))

    async with running(make_engine()) as (engine, _), trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(publish, engine, name)
    async with running(make_engine()) as (_, loaded):
        assert {*loaded.sessions} == {*names}
        for name in names:
            assert loaded.data(name) == [f"{name} {seq}" for seq in range(1, 4)]


async def test_a_session_that_was_dropped_does_not_come_back(make_engine: MakeEngine) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")), Opened(session_of("t")))
        await engine.append("s", INCARNATION, 1, 2000.0, events_of("a"))
        engine.note(Dropped("s"))
        await engine.settled()
    async with running(make_engine()) as (_, loaded):
        assert {*loaded.sessions} == {"t"}
        assert not loaded.data("s")


async def test_a_session_that_is_opened_again_begins_anew(make_engine: MakeEngine) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")))
        await engine.append("s", INCARNATION, 1, 2000.0, events_of("a", "b"))
        engine.note(Dropped("s"), Opened(session_of("s", "another")))
        await engine.append("s", "another", 1, 2001.0, events_of("c"))
    async with running(make_engine()) as (_, loaded):
        assert loaded.sessions["s"].incarnation == "another"
        assert loaded.data("s") == ["c"]
        assert loaded.seqs("s") == [1]


async def test_what_left_the_log_is_let_go_of(make_engine: MakeEngine) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")))
        for seq in range(1, 5):
            await engine.append("s", INCARNATION, seq, 2000.0 + seq, events_of(f"{seq}"))
        state = session_of("s", last=4)
        engine.note(Trimmed(replace(state, floor=2, floor_at=2002.0), oldest=3, bytes=2))
        await engine.settled()
    async with running(make_engine()) as (_, loaded):
        session = loaded.sessions["s"]

    assert (session.floor, session.floor_at, session.last) == (2, 2002.0, 4)
    assert loaded.seqs("s") == [3, 4]


async def test_numbers_go_on_where_everything_was_let_go_of(make_engine: MakeEngine) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")))
        await engine.append("s", INCARNATION, 1, 2000.0, events_of("a", "b", "c"))
        engine.note(Trimmed(replace(session_of("s", last=3), floor=3), oldest=4, bytes=0))
        await engine.settled()
    async with running(make_engine()) as (_, loaded):
        assert loaded.sessions["s"].last == 3
        assert not loaded.data("s")


async def test_ended_names_and_revocations_are_remembered(make_engine: MakeEngine) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Ended("s", 1000.0), Ended("t", 1001.0), Revoked("somebody", 1002.0))
        await engine.settled()
        engine.note(Ended("t", None))
        await engine.settled()
    async with running(make_engine()) as (_, loaded):
        assert loaded.ended == {"s": 1000.0}
        assert loaded.revoked == {"somebody": 1002.0}


async def test_a_handover_is_remembered_until_it_is_over(make_engine: MakeEngine) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(HandedOver(is_so=True))
    async with running(make_engine()) as (engine, loaded):
        assert loaded.moved_on
        engine.note(HandedOver(is_so=False))
    async with running(make_engine()) as (_, loaded):
        assert not loaded.moved_on


async def test_a_name_that_is_opened_again_counts_as_ended_no_longer(
    make_engine: MakeEngine,
) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Ended("s", 1000.0), Opened(session_of("s")))
        await engine.settled()
    async with running(make_engine()) as (_, loaded):
        assert not loaded.ended


async def test_a_session_may_be_told_anew_with_all_its_events(make_engine: MakeEngine) -> None:
    events = [KeptEvent(seq, 2000.0 + seq, EncodedEvent(b"x", None, f"{seq}")) for seq in (3, 5, 6)]
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")))
        await engine.append("s", INCARNATION, 1, 1999.0, events_of("old"))
        engine.note(Opened(replace(session_of("s", "another", last=6), floor=2), events))
        await engine.append("s", "another", 7, 2010.0, events_of("new"))
    async with running(make_engine()) as (_, loaded):
        assert loaded.events["s"][:3] == events
        assert loaded.seqs("s") == [3, 5, 6, 7]


async def test_a_large_history_comes_back_whole(make_engine: MakeEngine) -> None:
    count = 2000
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")))
        for first in range(1, count, 100):
            blocks = [f"{seq}:{'x' * 500}" for seq in range(first, first + 100)]
            await engine.append("s", INCARNATION, first, 2000.0, events_of(*blocks))
    async with running(make_engine()) as (_, loaded):
        assert loaded.seqs("s") == [*range(1, count + 1)]
        assert [data.partition(":")[0] for data in loaded.data("s")] == [
            str(seq) for seq in range(1, count + 1)
        ]


async def test_an_append_that_is_cancelled_leaves_the_others_alone(
    make_engine: MakeEngine,
) -> None:
    async with running(make_engine()) as (engine, _):
        engine.note(Opened(session_of("s")), Opened(session_of("t")))
        with trio.CancelScope() as scope:
            scope.cancel()
            await engine.append("s", INCARNATION, 1, 2000.0, events_of("a"))
        await engine.append("t", INCARNATION, 1, 2000.0, events_of("b"))
    async with running(make_engine()) as (_, loaded):
        assert loaded.data("t") == ["b"]
