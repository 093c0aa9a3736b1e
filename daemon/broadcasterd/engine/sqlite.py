"""The engine for one durable node: a file, and one thread that writes to it.

What all sessions bring while a commit is under way goes into the next one: the more there is to do,
the less each costs. Notes are owed to the file until they are in it; events are refused while it
cannot be written, which is looked at anew every second.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter

import structlog
import trio

from broadcasterd.config import ConfigError
from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.aside import set_aside
from broadcasterd.engine.port import (
    Dropped,
    Ended,
    EngineDown,
    HandedOver,
    Health,
    Note,
    Opened,
    Placed,
    Revoked,
    Taker,
    Trimmed,
)
from broadcasterd.engine.sqlite_file import Addition, Damaged, File, is_damage
from broadcasterd.engine.worker import Worker
from broadcasterd.figures.counts import Counts

log = structlog.stdlib.get_logger(__name__)

COMMIT_BYTES = 4 * 1024 * 1024
"""Events of one commit, if there are several to it: they are written to the log, then to tables."""

COMMIT_NOTES = 64
"""Notes of one commit: each takes some statements."""

PROBE_S = 1.0
"""Between two looks at a file that cannot be written."""

CLOSE_TIMEOUT_S = 3.0
"""What a stop waits for the last commit, and for the file to be closed."""

SLICE_EVENTS = 500
"""Events that are taken while the file is loaded, between two checkpoints."""

SLICE_SESSIONS = 100


class _Waiting:
    """A session's events on their way into the file."""

    __slots__ = ("addition", "problem", "settled")

    def __init__(self, addition: Addition) -> None:
        self.addition = addition
        self.settled = trio.Event()
        self.problem: EngineDown | None = None


class SqliteEngine:
    """Keeps sessions and events in a file.

    Args:
        path: the file; it is opened at once, and locked.
        unix_now: the wall clock.
        counts: what the daemon counts.

    Raises:
        ConfigError: the file cannot be opened: another process has it, or it cannot be written.

    """

    keeps = True
    is_shared = False

    def __init__(self, path: Path, unix_now: Callable[[], float], counts: Counts) -> None:
        self.health = Health("sqlite")
        self.generation = 0
        self._path = path
        self._unix_now = unix_now
        self._counts = counts
        self._file = _open(path, unix_now)
        self._waiting: deque[_Waiting] = deque()
        self._owed: dict[tuple[str, str], tuple[int, Note]] = {}  # oldest first, and numbered
        self._noted = 0
        self._written = 0  # all notes up to that number are in the file
        self._bell = trio.Event()
        self._wrote = trio.Event()
        self._loaded = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes, once the file is loaded; close it at the end."""
        self._worker = Worker("sqlite")
        try:
            task_status.started()
            await self._loaded.wait()
            while True:
                if self.health.why:
                    await trio.sleep(PROBE_S)
                else:
                    await self._bell.wait()
                self._bell = trio.Event()
                await self._write()
                if self._owed or self._waiting:
                    self._bell.set()
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                if self._loaded.is_set():
                    while self._owed and not self.health.why:
                        await self._write()
                await self._worker.call(self._file.close)
            self._worker.stop()

    async def load(self, taker: Taker) -> None:
        """Give all that the file has to a taker; then begin to write.

        A file that turns out to be damaged is set aside, and nothing of it is taken.
        """
        try:
            await self._give(taker)
        except (Damaged, sqlite3.DatabaseError) as error:
            if not is_damage(error):
                raise
            taker.forget()
            self._begin_anew(error)
        self._loaded.set()

    async def _give(self, taker: Taker) -> None:
        sessions = await self._worker.call(self._file.sessions)
        for note in await self._worker.call(self._file.notes):
            taker.take_note(note)
        for start in range(0, len(sessions), SLICE_SESSIONS):
            some = sessions[start : start + SLICE_SESSIONS]
            wanted = [session.name for session, _ in some if taker.take_session(session)]
            wanted.reverse()
            while wanted:
                for name, events in await self._worker.call(partial(self._file.read, wanted)):
                    for begin in range(0, len(events), SLICE_EVENTS):
                        taker.take_events(name, events[begin : begin + SLICE_EVENTS])
                        await trio.lowlevel.checkpoint()

    async def append(
        self, name: str, incarnation: str, first: int, at: float, events: Sequence[EncodedEvent]
    ) -> Placed:
        """Keep events; see :class:`~broadcasterd.engine.port.Engine`."""
        if self.health.why:
            await trio.lowlevel.checkpoint()
            raise EngineDown(self.health.why)
        waiting = _Waiting(Addition.of(name, incarnation, first, at, events))
        self._waiting.append(waiting)
        self._bell.set()
        await waiting.settled.wait()
        if waiting.problem is not None:
            raise waiting.problem
        return Placed(incarnation, range(first, first + len(events)))

    def note(self, *notes: Note) -> None:
        """Have notes written with the next commit; one takes the place of an older one."""
        for note in notes:
            key = _key(note)
            self._owed.pop(key, None)
            self._noted += 1
            self._owed[key] = self._noted, note
        self._bell.set()

    async def settled(self) -> None:
        """Wait until all that was noted so far is in the file."""
        noted = self._noted
        await trio.lowlevel.checkpoint()
        while self._written < noted:
            if self.health.why:
                raise EngineDown(self.health.why)
            await self._wrote.wait()

    # Writing

    async def _write(self) -> None:
        """Write what there is, or a part of it."""
        notes = [self._owed.pop(key) for key in [*self._owed][:COMMIT_NOTES]]
        group = self._take_group()
        act = partial(self._commit, [note for _, note in notes], [each.addition for each in group])
        began = perf_counter()
        left_out: Sequence[int] = range(len(group))
        problem: EngineDown | None = None
        try:
            with trio.CancelScope(shield=True):  # or nobody would know what became of it
                left_out = await self._worker.call(act)
        except (sqlite3.Error, Damaged) as error:
            self._put_back(notes)
            self._went_down(error)
            problem = EngineDown(self.health.why)
            if is_damage(error):
                self._begin_anew(error)
        else:
            self._counts.commits.record(perf_counter() - began)
            self._counts.committed_events += sum(each.addition.count for each in group)
            self._came_up()
            self._written = min((n for n, _ in self._owed.values()), default=self._noted + 1) - 1
        for index in left_out:
            group[index].problem = problem or EngineDown("the session is not there")
        for each in group:
            each.settled.set()
        self._wrote.set()
        self._wrote = trio.Event()

    def _begin_anew(self, error: Exception) -> None:
        """Go on with another file; what this one had, everybody tells it anew."""
        with suppress(sqlite3.Error):
            self._file.close()
        self._owed.clear()
        self.generation += 1
        self._file = _begin_anew(self._path, self._unix_now(), error)

    def _put_back(self, notes: Sequence[tuple[int, Note]]) -> None:
        """Owe notes as before; what was noted meanwhile about the same takes their place."""
        owed = {key: each for each in notes if (key := _key(each[1])) not in self._owed}
        self._owed = owed | self._owed

    def _take_group(self) -> list[_Waiting]:
        """Take the events of the next commit: all, or as many as one may have."""
        group: list[_Waiting] = []
        later: list[_Waiting] = []
        size = 0
        while self._waiting and (size < COMMIT_BYTES or not group):
            waiting = self._waiting.popleft()
            if ("session", waiting.addition.name) in self._owed:
                later.append(waiting)  # its session is not in the file yet
            else:
                size += len(waiting.addition.events)
                group.append(waiting)
        self._waiting.extendleft(reversed(later))
        return group

    def _commit(self, notes: Sequence[Note], additions: Sequence[Addition]) -> Sequence[int]:
        """Write, in the thread; return the indexes of the additions that were left out."""
        left_out: Sequence[int] = ()
        if notes or additions:
            left_out = self._file.write(notes, additions, self._unix_now())
        else:
            self._file.probe()
        if notes or not additions:
            self._file.tidy()
            self.health.disk_bytes = self._file.size_bytes
        return left_out

    def _went_down(self, error: Exception) -> None:
        why = str(error)
        if not self.health.why:
            log.error("the engine is down", engine="sqlite", why=why)
        self.health.why = why

    def _came_up(self) -> None:
        if self.health.why:
            log.warning("the engine is up again", engine="sqlite", after=self.health.why)
        self.health.why = ""


def _key(note: Note) -> tuple[str, str]:
    """Return what a note is about: a newer one about the same says all."""
    match note:
        case Opened(session):
            return "session", session.name
        case Dropped(name):
            return "session", name
        case Trimmed(session):
            return "trimmed", session.name
        case Ended(name):
            return "ended", name
        case Revoked(subject):
            return "revoked", subject
        case HandedOver():
            return "handed over", ""


def _open(path: Path, unix_now: Callable[[], float]) -> File:
    """Open the file; one that cannot be used is set aside."""
    try:
        try:
            return File(path)
        except Damaged as error:
            return _begin_anew(path, unix_now(), error)
    except (sqlite3.Error, OSError) as error:
        is_locked = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        why = "another process has it open" if is_locked else f"cannot be opened: {error}"
        raise ConfigError(f'engine.path = "{path}": {why}') from error


def _begin_anew(path: Path, unix_now: float, error: Exception) -> File:
    """Set a file aside that cannot be used, and return another one in its place."""
    kept_as = set_aside(path, unix_now)
    log.error(
        "the engine's file was set aside",
        file=str(path),
        kept_as=str(kept_as),
        why=str(error),
        then="every session begins anew; clients come back and are told of the gap",
    )
    return File(path)
