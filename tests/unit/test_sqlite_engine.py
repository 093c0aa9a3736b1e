"""The engine on SQLite: its file when it is damaged, full or taken, and how large it gets."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from broadcasterd.config import ConfigError
from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.aside import KEPT
from broadcasterd.engine.aside import set_aside as set_file_aside
from broadcasterd.engine.port import EngineDown, Opened, Trimmed
from broadcasterd.engine.sqlite import SqliteEngine
from broadcasterd.engine.sqlite_file import FREE_PAGES, VERSION, WASTED_BYTES
from broadcasterd.figures.counts import Counts
from tests.support.engines import INCARNATION, Loaded, events_of, session_of


@pytest.fixture(autouse=True)
def looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an engine that is down look soon whether it can write again."""
    monkeypatch.setattr("broadcasterd.engine.sqlite.PROBE_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "events.sqlite"


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[SqliteEngine, Loaded]]:
    """Run an engine that has been loaded."""
    loaded, engine = Loaded(), SqliteEngine(path, time.time, Counts())
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load(loaded)
        yield engine, loaded
        nursery.cancel_scope.cancel()


async def keep(path: Path, *blocks: str) -> None:
    """Have events kept."""
    async with running(path) as (engine, _):
        engine.note(Opened(session_of("s")))
        await engine.append("s", INCARNATION, 1, 2000.0, events_of(*blocks))


async def is_up(engine: SqliteEngine) -> None:
    """Wait until the engine can write again."""
    while engine.health.why:
        await engine._wrote.wait()


def set_aside(path: Path) -> list[Path]:
    """Return the files that were set aside."""
    return sorted(path.parent.glob("*.aside-*Z"))


# --- a file that cannot be used --------------------------------------------------------------


def overwrite(path: Path, page: int, count: int) -> None:
    """Damage some pages of a file, counted from 0."""
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 4096 * count)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def write_nonsense(path: Path) -> None:
    path.write_bytes(b"nothing of the kind" * 1000)


async def test_a_file_of_another_program_is_set_aside_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = content_of(path)
    async with running(path) as (_, loaded):
        assert not loaded.sessions

    [aside] = set_aside(path)
    assert content_of(aside) == before


async def test_a_file_that_is_none_of_sqlite_is_set_aside(path: Path) -> None:
    write_nonsense(path)
    await keep(path, "a")

    assert len(set_aside(path)) == 1
    async with running(path) as (_, loaded):
        assert loaded.data("s") == ["a"]


async def test_a_file_of_a_newer_release_is_set_aside(path: Path) -> None:
    await keep(path, "a")
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    async with running(path) as (_, loaded):
        assert not loaded.sessions

    assert len(set_aside(path)) == 1


def test_what_lies_beside_a_file_goes_with_it(path: Path) -> None:
    for side in ("", "-wal", "-shm"):
        path.with_name(path.name + side).write_text(side)
    aside = set_file_aside(path, 0.0)

    left = [side for side in ("", "-wal", "-shm") if path.with_name(path.name + side).exists()]

    assert not left
    assert [aside.with_name(aside.name + side).read_text() for side in ("", "-wal", "-shm")] == [
        "",
        "-wal",
        "-shm",
    ]


@pytest.mark.parametrize("table", ["session", "event"])
async def test_a_file_whose_pages_are_damaged_is_set_aside_and_nothing_of_it_taken(
    path: Path, table: str
) -> None:
    await keep(path, *(f"{n} {'x' * 2000}" for n in range(50)))
    with sqlite3.connect(path) as db:
        found = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        (page,) = found.fetchone()
    db.close()
    overwrite(path, page - 1, 1)
    async with running(path) as (_, loaded):
        assert not loaded.sessions
        assert not loaded.events

    assert len(set_aside(path)) == 1


async def test_a_row_that_cannot_be_read_counts_as_damage(path: Path) -> None:
    await keep(path, "a")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE event SET events = x'c1c1'")
    db.close()
    async with running(path) as (_, loaded):
        assert not loaded.sessions

    assert len(set_aside(path)) == 1


async def test_only_the_last_few_that_were_set_aside_are_kept(path: Path) -> None:
    for _ in range(KEPT + 2):
        write_nonsense(path)
        async with running(path):
            pass

    assert len(set_aside(path)) == KEPT


async def test_damage_that_shows_while_it_runs_begins_another_file_and_another_generation(
    path: Path,
) -> None:
    await keep(path, "a")
    async with running(path) as (engine, _):
        engine._file._db.execute("PRAGMA cache_size = 0")
        engine._file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        overwrite(path, 1, engine._file.size_bytes // 4096 - 1)
        with pytest.raises(EngineDown):
            await engine.append("s", INCARNATION, 2, 2000.0, events_of("b"))
        assert engine.generation == 1
        engine.note(Opened(session_of("s", last=1), ()))
        await is_up(engine)
        await engine.append("s", INCARNATION, 2, 2000.0, events_of("b"))
    async with running(path) as (_, loaded):
        assert loaded.seqs("s") == [2]


async def test_a_file_that_another_daemon_has_stops_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broadcasterd.engine.sqlite_file.LOCK_TIMEOUT_S", 0.0)
    async with running(path):
        with pytest.raises(ConfigError, match="another process has it open"):
            SqliteEngine(path, time.time, Counts())


def test_a_directory_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.path.*cannot be opened"):
        SqliteEngine(tmp_path / "missing" / "events.sqlite", time.time, Counts())


# --- a disk that is full ---------------------------------------------------------------------


async def test_a_full_disk_refuses_events_and_recovers_by_itself(path: Path) -> None:
    await keep(path, "a")
    async with running(path) as (engine, _):
        db = engine._file._db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        large = events_of("x" * 100_000)
        with pytest.raises(EngineDown) as caught:
            await engine.append("s", INCARNATION, 2, 2000.0, large)
        assert "full" in engine.health.why
        assert caught.value.status == 503
        with pytest.raises(EngineDown):  # at once, until it is looked at anew
            await engine.append("s", INCARNATION, 2, 2000.0, events_of("b"))
        engine.note(Opened(session_of("t")))
        db.execute("PRAGMA max_page_count = 100000")
        await is_up(engine)
        await engine.append("s", INCARNATION, 2, 2000.0, large)
        await engine.settled()
    async with running(path) as (_, loaded):
        assert loaded.seqs("s") == [1, 2]
        assert {*loaded.sessions} == {"s", "t"}


async def test_notes_are_owed_while_nothing_can_be_written(path: Path) -> None:
    async with running(path) as (engine, _):
        await engine.settled()
        engine._file._db.execute("PRAGMA query_only = ON")
        engine.note(Opened(session_of("s")))
        with pytest.raises(EngineDown):
            await engine.settled()
        engine._file._db.execute("PRAGMA query_only = OFF")
        await is_up(engine)
        await engine.settled()
    async with running(path) as (_, loaded):
        assert {*loaded.sessions} == {"s"}


# --- its size --------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_file_stays_as_large_as_what_is_left_makes_it(path: Path) -> None:
    """As much as thirty histories have passes through one."""
    count, size = 100, 20_000
    async with running(path) as (engine, _):
        engine.note(Opened(session_of("s")))
        sizes = []
        for last in range(10, 30 * count, 10):
            some = events_of(*["x" * size] * 10)
            await engine.append("s", INCARNATION, last - 9, 2000.0, some)
            if last % count == 0:
                state = replace(session_of("s", last=last), floor=last - count)
                engine.note(Trimmed(state, last - count + 1, count * size))
                await engine.settled()
                sizes.append(engine.health.disk_bytes)
    left = count * size

    assert max(sizes) <= 3 * left + (FREE_PAGES + 512) * 4096
    assert sizes[-1] <= max(sizes[:10])


@pytest.mark.slow
async def test_pages_that_are_free_go_back_to_the_file_system(path: Path) -> None:
    async with running(path) as (engine, _):
        engine.note(Opened(session_of("s")))
        for seq in range(1, 301):
            await engine.append("s", INCARNATION, seq, 2000.0, events_of("x" * 100_000))
        await engine.settled()
        engine.note(Opened(session_of("t")))
        await engine.settled()
        large = engine.health.disk_bytes
        engine.note(Trimmed(replace(session_of("s", last=300), floor=300), 301, 0))
        for n in range(40):
            engine.note(Opened(session_of(f"u{n}")))
            await engine.settled()
        small = engine.health.disk_bytes

    assert large > 30_000_000
    assert small < FREE_PAGES * 4096 * 1.5


@pytest.mark.slow
async def test_short_lived_events_between_lasting_ones_do_not_pile_up(path: Path) -> None:
    """Rows in which one event is left are made anew, without the others."""
    lasting, fleeting = EncodedEvent(b"lasting"), EncodedEvent(b"x" * 20_000, 0.001)
    async with running(path) as (engine, _):
        engine.note(Opened(session_of("s")))
        for first in range(1, 400, 2):
            await engine.append("s", INCARNATION, first, 2000.0, [lasting, fleeting])
        engine.note(Trimmed(session_of("s", last=400), 1, 200 * len(b"lasting")))
        await engine.settled()
        (size,) = engine._file._db.execute("SELECT total(length(events)) FROM event").fetchone()
    async with running(path) as (_, loaded):
        seqs = loaded.seqs("s")

    assert size <= 2 * 200 * len(b"lasting") + WASTED_BYTES
    assert seqs == [*range(1, 400, 2)]
    assert loaded.sessions["s"].last == 400


async def test_what_comes_while_a_commit_is_under_way_shares_the_next(path: Path) -> None:
    async with running(path) as (engine, _), trio.open_nursery() as nursery:
        names = [f"s{n}" for n in range(50)]
        engine.note(*(Opened(session_of(name)) for name in names))
        await engine.settled()
        before = sum(engine._counts.commits.counts)
        for name in names:
            nursery.start_soon(engine.append, name, INCARNATION, 1, 2000.0, events_of("a"))
    assert sum(engine._counts.commits.counts) - before <= 3
    assert engine._counts.committed_events == 50
