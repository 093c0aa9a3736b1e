"""Engines for tests: what was kept, as one that loads it sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.port import Ended, HandedOver, KeptEvent, KeptSession, Revoked

INCARNATION = "1234abcd"


@dataclass
class Loaded:
    """What an engine gave: sessions by name, their events, and what is remembered beside."""

    sessions: dict[str, KeptSession] = field(default_factory=dict)
    events: dict[str, list[KeptEvent]] = field(default_factory=dict)
    ended: dict[str, float | None] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)
    moved_on: bool = False
    unwanted: frozenset[str] = frozenset()

    def take_session(self, session: KeptSession) -> bool:
        self.sessions[session.name] = session
        return session.name not in self.unwanted

    def take_events(self, name: str, events: Sequence[KeptEvent]) -> None:
        self.events.setdefault(name, []).extend(events)

    def take_note(self, note: Ended | Revoked | HandedOver) -> None:
        match note:
            case HandedOver():
                self.moved_on = True
            case Ended(name, at):
                self.ended[name] = at
            case Revoked(subject, at):
                self.revoked[subject] = at

    def forget(self) -> None:
        self.sessions.clear()
        self.events.clear()

    def data(self, name: str) -> list[str]:
        """Return the blocks of a session's events."""
        return [kept.event.block.decode() for kept in self.events.get(name, [])]

    def seqs(self, name: str) -> list[int]:
        """Return their numbers."""
        return [kept.seq for kept in self.events.get(name, [])]


def session_of(name: str, incarnation: str = INCARNATION, *, last: int = 0) -> KeptSession:
    """Return a session that is new, or has had some events."""
    return KeptSession(name, incarnation, 1000.0, "somebody", last=last)


def events_of(*blocks: str) -> list[EncodedEvent]:
    """Return events with these blocks."""
    return [EncodedEvent(block.encode()) for block in blocks]
