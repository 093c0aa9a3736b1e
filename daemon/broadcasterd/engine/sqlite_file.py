"""The file of the sqlite engine: its tables, and what is written and read. It knows no event loop.

One row of ``event`` has what one session brought for one commit, as one value: a statement lets go
of the interpreter's lock and has to wait for it again, so that few statements are worth more than
small ones. What left a log is deleted later, row by row; where events with a ttl of their own went
from the middle of rows, the rows are made anew once they are mostly waste.

WARNING: for one thread at a time. The file is locked for as long as it is open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from broadcasterd.access.revocations import MAX_REVOKED
from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.port import (
    Dropped,
    Ended,
    HandedOver,
    KeptEvent,
    KeptSession,
    Note,
    Opened,
    Revoked,
    Trimmed,
)

APPLICATION_ID: Final = 0x62726463  # "brdc"
VERSION: Final = 1

LOCK_TIMEOUT_S = 5.0
"""The process before may still be closing the file."""

CACHE_KIB = 4096
WAL_PAGES = 2048
"""The log is copied into the tables once it has so many pages: 8 MiB."""

WASTED_BYTES = 64 * 1024
"""The rows of a session may have twice what is left of it, and so much more."""

FREE_PAGES = 1024
VACUUM_PAGES = 256
"""Free pages that are kept for what comes; and those given back at a time: a megabyte."""

READ_BYTES = 256 * 1024
"""Read at a time, while the file is loaded: some milliseconds of work for whoever takes it."""

ROW_BYTES = 64 * 1024
"""Of rows that are made anew."""

_INSERTED_ROWS = (64, 8, 1)
"""Rows of one statement: of a few sizes, so that it is prepared once."""

_SCHEMA = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, incarnation TEXT NOT NULL, subject BLOB,
    opened_at REAL NOT NULL, floor INTEGER NOT NULL, floor_at REAL, last INTEGER NOT NULL);
CREATE TABLE event (
    session INTEGER NOT NULL, last INTEGER NOT NULL, at REAL NOT NULL, places BLOB,
    events BLOB NOT NULL, PRIMARY KEY (session, last)) WITHOUT ROWID;
CREATE TABLE ended (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE handed_over (at INTEGER PRIMARY KEY);
CREATE TABLE revoked (subject BLOB PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""
"""``event.last`` is the number of the last event of a row; ``places`` has the number and the time
of each where they are not one after another, and of ``at``."""

_FORGET_REVOKED = """
DELETE FROM revoked WHERE subject IN (
    SELECT subject FROM revoked ORDER BY at LIMIT max(0, (SELECT count(*) FROM revoked) - ?))
"""

_encode = msgspec.msgpack.Encoder().encode
_decode_events = msgspec.msgpack.Decoder(list[EncodedEvent]).decode
_decode_places = msgspec.msgpack.Decoder(list[tuple[int, float]]).decode


class Damaged(Exception):  # noqa: N818 (what the file is)
    """The file is damaged, or none of ours, or a newer release's."""


class Addition(msgspec.Struct, frozen=True, gc=False):
    """Events of one session for one commit; ``last`` is the number of the last of ``count``."""

    name: str
    incarnation: str
    last: int
    at: float
    count: int
    events: bytes

    @classmethod
    def of(
        cls, name: str, incarnation: str, first: int, at: float, events: Sequence[EncodedEvent]
    ) -> Addition:
        """Pack events that follow each other."""
        return cls(name, incarnation, first + len(events) - 1, at, len(events), _encode(events))


@dataclass(frozen=True, slots=True)
class Row:
    """A session in the file: its id, and the incarnation of its log."""

    id: int
    incarnation: str


_Values = tuple[int, int, float, bytes | None, bytes]


class File:
    """An open file.

    Args:
        path: it, made if it is missing.

    Raises:
        Damaged: it cannot be used, and never will be.
        sqlite3.Error: it cannot be used now: another process has it, or the disk is full.

    """

    def __init__(self, path: Path) -> None:
        self._rows: dict[str, Row] = {}
        self._next_id = 1
        self._db = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._begin()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise _judged(error) from error
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        execute = self._db.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        tables, application, version = execute(
            "SELECT (SELECT count(*) FROM sqlite_master), a.application_id, v.user_version"
            " FROM pragma_application_id a, pragma_user_version v"
        ).fetchone()
        if tables and application != APPLICATION_ID:
            raise Damaged("it is a file of another program")
        if tables and version > VERSION:
            raise Damaged(f"it is of a newer release: its version is {version}")
        if not tables:
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        execute(f"PRAGMA journal_size_limit = {2 * WAL_PAGES * 4096}")
        execute("BEGIN IMMEDIATE")  # locks it
        if not tables:
            for statement in _SCHEMA.split(";"):
                execute(statement)
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {VERSION}")
        execute("COMMIT")

    def close(self) -> None:
        """Close it; its log is copied into it."""
        self._db.close()

    @property
    def size_bytes(self) -> int:
        """What it takes on disk, without its log."""
        pages: int = self._db.execute("PRAGMA page_count").fetchone()[0]
        return pages * 4096

    # Loading

    def sessions(self) -> list[tuple[KeptSession, float | None]]:
        """Return all sessions, those first that were published to last, and when that was."""
        found = self._db.execute(
            "SELECT s.id, name, incarnation, subject, opened_at, floor, floor_at,"
            " max(s.last, coalesce(e.last, 0)), e.at"
            " FROM session s LEFT JOIN event e ON e.session = s.id"
            " AND e.last = (SELECT max(last) FROM event WHERE session = s.id)"
            " ORDER BY e.at DESC"
        ).fetchall()
        sessions = []
        for id_, name, incarnation, subject, opened_at, floor, floor_at, last, at in found:
            self._rows[name] = Row(id_, incarnation)
            self._next_id = max(self._next_id, id_ + 1)
            owner = None if subject is None else _text(subject)
            kept = KeptSession(name, incarnation, opened_at, owner, floor, floor_at, last)
            sessions.append((kept, at))
        return sessions

    def notes(self) -> list[Ended | Revoked | HandedOver]:
        """Return what is remembered beside, oldest first."""
        ended = self._db.execute("SELECT name, at FROM ended ORDER BY at").fetchall()
        revoked = self._db.execute("SELECT subject, at FROM revoked ORDER BY at").fetchall()
        moved = self._db.execute("SELECT at FROM handed_over").fetchall()
        return [
            *(HandedOver(is_so=True) for _ in moved),
            *(Ended(*row) for row in ended),
            *(Revoked(_text(subject), at) for subject, at in revoked),
        ]

    def read(self, names: list[str]) -> list[tuple[str, list[KeptEvent]]]:
        """Return the events of the last of some sessions, and take those from the list."""
        found = []
        size = 0
        while names and size < READ_BYTES:
            name = names.pop()
            rows = self._rows_of(self._rows[name].id)
            size += sum(len(row[3]) for row in rows)
            found.append((name, [*_unpacked(rows)]))
        return found

    def _rows_of(self, id_: int) -> list[tuple[int, float, bytes | None, bytes]]:
        return self._db.execute(
            "SELECT last, at, places, events FROM event WHERE session = ? ORDER BY last", (id_,)
        ).fetchall()

    # Writing

    def write(self, notes: Sequence[Note], additions: Sequence[Addition], now: float) -> list[int]:
        """Write all of it, or nothing: first the notes, then the additions.

        Return which additions were left out, by their indexes: their sessions are not there.

        Raises:
            sqlite3.Error: nothing was written.

        """
        changes: dict[str, Row | None] = {}
        trimmed = [note for note in notes if isinstance(note, Trimmed)]
        is_one = len(additions) == 1 and not notes
        try:
            if not is_one:
                self._db.execute("BEGIN IMMEDIATE")
            for note in notes:
                self._note(note, changes)
            left_out = self._add(additions, changes)
            for note in trimmed:
                self._trim(note, changes, now)
            if not is_one:
                self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        for name, row in changes.items():
            if row is None:
                self._rows.pop(name, None)
            else:
                self._rows[name] = row
        return left_out

    def probe(self) -> None:
        """Write something, to see whether that goes.

        Raises:
            sqlite3.Error: it does not.

        """
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    def tidy(self) -> None:
        """Give a step of free pages back to the file system, if they are many."""
        free, pages = self._db.execute(
            "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count"
        ).fetchone()
        if free > FREE_PAGES and free * 4 > pages:
            # It is a step for each page, of which execute() would make one.
            self._db.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def _row(self, name: str, changes: dict[str, Row | None]) -> Row | None:
        return changes[name] if name in changes else self._rows.get(name)

    def _note(self, note: Note, changes: dict[str, Row | None]) -> None:
        execute = self._db.execute
        match note:
            case Opened(session, events):
                self._drop(session.name, changes)
                row = changes[session.name] = Row(self._next_id, session.incarnation)
                self._next_id += 1
                execute(
                    "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (row.id, *_columns(session)),
                )
                execute("DELETE FROM ended WHERE name = ?", (session.name,))
                self._insert(_packed(row.id, events))
            case Dropped(name):
                self._drop(name, changes)
            case HandedOver(is_so):
                execute("DELETE FROM handed_over")
                if is_so:
                    execute("INSERT INTO handed_over VALUES (unixepoch())")
            case Ended(name, None):
                execute("DELETE FROM ended WHERE name = ?", (name,))
            case Ended(name, at):
                execute("INSERT OR REPLACE INTO ended VALUES (?, ?)", (name, at))
            case Revoked(subject, at):
                execute("INSERT OR REPLACE INTO revoked VALUES (?, ?)", (_packed_text(subject), at))
                execute(_FORGET_REVOKED, (MAX_REVOKED,))

    def _drop(self, name: str, changes: dict[str, Row | None]) -> None:
        if (row := self._row(name, changes)) is not None:
            self._db.execute("DELETE FROM event WHERE session = ?", (row.id,))
            self._db.execute("DELETE FROM session WHERE id = ?", (row.id,))
            changes[name] = None

    def _add(self, additions: Sequence[Addition], changes: dict[str, Row | None]) -> list[int]:
        """Write additions; return the indexes of those that were left out."""
        rows: list[_Values] = []
        left_out = []
        for index, each in enumerate(additions):
            row = self._row(each.name, changes)
            if row is None or row.incarnation != each.incarnation:
                left_out.append(index)
            else:
                rows.append((row.id, each.last, each.at, None, each.events))
        self._insert(rows)
        return left_out

    def _insert(self, rows: Sequence[_Values]) -> None:
        done = 0
        for size in _INSERTED_ROWS:
            while len(rows) - done >= size:
                values = [value for row in rows[done : done + size] for value in row]
                self._db.execute(_INSERT[size], values)
                done += size

    def _trim(self, note: Trimmed, changes: dict[str, Row | None], now: float) -> None:
        session = note.session
        row = self._row(session.name, changes)
        if row is None or row.incarnation != session.incarnation:
            return
        execute = self._db.execute
        execute("DELETE FROM event WHERE session = ? AND last < ?", (row.id, note.oldest))
        execute(
            "UPDATE session SET floor = ?, floor_at = ?, last = ? WHERE id = ?",
            (session.floor, session.floor_at, session.last, row.id),
        )
        (size,) = execute(
            "SELECT total(length(events)) FROM event WHERE session = ?", (row.id,)
        ).fetchone()
        if size > 2 * note.bytes + WASTED_BYTES:
            left = [
                kept
                for kept in _unpacked(self._rows_of(row.id))
                if kept.seq > session.floor
                and (kept.event.ttl is None or kept.at + kept.event.ttl > now)
            ]
            execute("DELETE FROM event WHERE session = ?", (row.id,))
            self._insert(_packed(row.id, left))


_INSERT = {
    size: f"INSERT INTO event VALUES {', '.join(['(?, ?, ?, ?, ?)'] * size)}"  # noqa: S608 # nosec B608 (marks)
    for size in _INSERTED_ROWS
}


def _packed_text(text: str | None) -> bytes | None:
    """Return a text that may be none of UTF-8: a token's subject can have half a surrogate pair."""
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _text(packed: bytes) -> str:
    return packed.decode("utf-8", "surrogatepass")


def _columns(session: KeptSession) -> tuple[object, ...]:
    return (
        session.name,
        session.incarnation,
        _packed_text(session.subject),
        session.opened_at,
        session.floor,
        session.floor_at,
        session.last,
    )


def _unpacked(rows: Iterable[tuple[int, float, bytes | None, bytes]]) -> Iterable[KeptEvent]:
    """Yield the events of rows.

    Raises:
        Damaged: a row is none of ours.

    """
    try:
        for last, at, places, packed in rows:
            events = _decode_events(packed)
            if places is None:
                for seq, event in enumerate(events, start=last - len(events) + 1):
                    yield KeptEvent(seq, at, event)
            else:
                for (seq, came_at), event in zip(_decode_places(places), events, strict=True):
                    yield KeptEvent(seq, came_at, event)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Damaged(f"an event cannot be read: {error}") from error


def _packed(id_: int, events: Sequence[KeptEvent]) -> list[_Values]:
    """Return events with their numbers and times as rows."""
    rows: list[_Values] = []
    group: list[KeptEvent] = []
    size = 0
    for kept in events:
        group.append(kept)
        size += len(kept.event.block)
        if size >= ROW_BYTES or kept is events[-1]:
            places = _encode([(each.seq, each.at) for each in group])
            packed = _encode([each.event for each in group])
            rows.append((id_, kept.seq, kept.at, places, packed))
            group, size = [], 0
    return rows


_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _judged(error: sqlite3.DatabaseError) -> Exception:
    """Return an error as what it says of the file."""
    return Damaged(str(error)) if is_damage(error) else error


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file is none that can be used."""
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, Damaged) or code & 0xFF in _DAMAGE
