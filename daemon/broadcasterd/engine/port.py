"""The port of an engine: what a session asks of whatever keeps events beyond the process.

A session stays the only one that orders what its subscribers read. What it is sent it *stages*,
hands to the engine, and puts into its log only once the engine has it: nobody here ever sees an id
that a crash could give out again.

There are two kinds. An engine of one process keeps what the session decided: numbers, ids, and what
is a duplicate. A *shared* one has others that publish to the same sessions, and decides all that
itself, in one step; its answer settles the publishers, and the events come back to each session
that somebody reads as :class:`Arrived`, in its inbox, own and foreign ones in the engine's order.

All times here are Unix times in seconds: those of a monotonic clock end with the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import msgspec
import trio

from broadcasterd.core.event import EncodedEvent
from broadcasterd.errors import Unavailable
from broadcasterd.figures.counts import Cause

RETRY_AFTER_S = 2
"""Seconds after which a publisher may come back that an engine turned away."""


class EngineDown(Unavailable):
    """503: the engine cannot keep anything now."""

    def __init__(self, why: str) -> None:
        detail = f"events cannot be kept now: {why}"
        super().__init__(detail, retry_after=RETRY_AFTER_S, cause=Cause.ENGINE)


# What is told, and loaded again


class KeptEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event with its number and the time when it came."""

    seq: int
    at: float
    event: EncodedEvent


class KeptSession(msgspec.Struct, frozen=True, gc=False):
    """A session: the state of its log without the events.

    Attributes:
        incarnation: names its log in every id.
        opened_at: when it was opened.
        floor, floor_at: the newest event that a bound took, and when that had come.
        last: the number of its newest event.

    """

    name: str
    incarnation: str
    opened_at: float
    subject: str | None = None
    floor: int = 0
    floor_at: float | None = None
    last: int = 0


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A session, to be kept from now on with these events, whatever was kept under its name."""

    session: KeptSession
    events: Sequence[KeptEvent] = ()


class Trimmed(msgspec.Struct, frozen=True, gc=False):
    """The events of a session that left its log need not be kept any more.

    Attributes:
        oldest: the number of the oldest event that is left; one above the last if none is.
        bytes: what is left in all.

    """

    session: KeptSession
    oldest: int
    bytes: int


class Dropped(msgspec.Struct, frozen=True, gc=False):
    """A session is no more, with all its events."""

    name: str


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A session was closed for good: its name is to be remembered. ``None`` is: no longer."""

    name: str
    at: float | None


class Revoked(msgspec.Struct, frozen=True, gc=False):
    """The tokens of a subject are denied that were issued by then."""

    subject: str
    at: float


class HandedOver(msgspec.Struct, frozen=True, gc=False):
    """All sessions were handed to the next process; it may have gone on with them elsewhere.

    A process that loads this, and has no handover, cannot tell which ids were given out since:
    its sessions get other incarnations. ``False`` is: no longer.
    """

    is_so: bool


Note = Opened | Trimmed | Dropped | Ended | Revoked | HandedOver


@dataclass(frozen=True, slots=True)
class Placed:
    """The places that the events of an :meth:`Engine.append` have, in their order.

    Attributes:
        incarnation: that of the log that they are in.
        seqs: their numbers; of a duplicate that of the event that is retained.
        duplicates: the indexes of those that are duplicates.
        elsewhere: the streams that are open on the session in other processes, as far as is known.

    """

    incarnation: str
    seqs: Sequence[int]
    duplicates: frozenset[int] = frozenset()
    elsewhere: int = 0


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """Events of a shared engine on their way into a session's log, in the engine's order.

    Attributes:
        events: own and foreign ones; each follows the one before it.
        anew: the log begins anew, with these events: it was empty, or it has lost some that it
            cannot get, or another incarnation takes its place.

    """

    events: Sequence[KeptEvent]
    anew: KeptSession | None = None


class Follower(Protocol):
    """A session that somebody reads, in the eyes of a shared engine."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def subject(self) -> str | None:
        """The one on whose account it is opened."""

    @property
    def has(self) -> tuple[str, int]:
        """The incarnation of its log and the number of the last event there; empty for none."""

    def take(self, arrived: Arrived) -> None:
        """Take what follows. It does not wait."""

    def over(self) -> None:
        """Take notice that the session was ended, by whomever. Nothing follows."""


class Taker(Protocol):
    """Takes what an engine has kept, while it is loaded."""

    def take_session(self, session: KeptSession) -> bool:
        """Take a session; return whether its events are wanted, which follow."""

    def take_events(self, name: str, events: Sequence[KeptEvent]) -> None:
        """Take events of a session, oldest first. What follows them comes in further calls."""

    def take_note(self, note: Ended | Revoked | HandedOver) -> None:
        """Take what is to be remembered beside; this comes first.

        A shared engine goes on with what others note.
        """

    def forget(self) -> None:
        """Forget all that was taken so far: it cannot be trusted."""


@dataclass(slots=True)
class Health:
    """The state of an engine, and what it has done.

    Attributes:
        why: what is wrong; empty while all is well.
        lost: events that were answered 200 and could not be kept (``durability = "relaxed"``).
        disk_bytes: what it takes on disk.

    """

    kind: str
    why: str = ""
    lost: int = 0
    disk_bytes: int = 0


class Engine(Protocol):
    """Keeps sessions and their events, so that a process that comes later has them."""

    @property
    def keeps(self) -> bool:
        """Whether it keeps anything: a session does not wait for one that does not."""

    @property
    def is_shared(self) -> bool:
        """Whether others publish through it, too; then it decides numbers and duplicates."""

    @property
    def generation(self) -> int:
        """How often it may have lost what it was told: then it is to be told of everything anew."""

    @property
    def health(self) -> Health:
        """Its state now."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open it, and serve until cancelled; the start is told once it can be loaded."""

    async def load(self, taker: Taker) -> None:
        """Give all that was kept to a taker, in slices. Only then anything is written."""

    async def append(
        self, name: str, incarnation: str, first: int, at: float, events: Sequence[EncodedEvent]
    ) -> Placed:
        """Keep events of a session, all or none; return once they are kept.

        Args:
            name: the session's.
            incarnation: that of its log, as the session knows it.
            first: the number of the first event; a shared engine finds its own.
            at: when they came.
            events: one or more; there is no duplicate among them, unless the engine is shared.

        Raises:
            EngineDown: they are not kept. Cancelled, they may be.

        """

    def note(self, *notes: Note) -> None:
        """Have something kept soon; it is not lost while the engine is down."""

    async def settled(self) -> None:
        """Wait until all that was noted so far is kept.

        Raises:
            EngineDown: it is not, yet.

        """


class SharedEngine(Engine, Protocol):
    """An engine through which others publish to the same sessions, too."""

    async def publish(
        self, name: str, events: Sequence[EncodedEvent], subject: str | None = None
    ) -> Placed:
        """Give events their places, all or none; whoever follows the session gets them.

        Args:
            name: the session's; it is opened if there is none.
            events: one or more.
            subject: the one on whose account it is opened.

        Raises:
            EngineDown: they are not published; or nobody knows.

        """

    async def follow(self, follower: Follower) -> None:
        """Give a follower all that it does not have; and from then on all that comes.

        Raises:
            EngineDown: it has nothing yet. It will have, unless it is let go of.

        """

    def catch_up(self, follower: Follower) -> None:
        """Go on from what a follower has: it left out what it was given since."""

    def unfollow(self, follower: Follower) -> None:
        """Let go of a follower."""

    def attend(self, follower: Follower, streams: int) -> None:
        """Tell the others how many streams are open here on a session that is followed.

        It is kept from expiring while there are any.
        """

    def elsewhere(self, name: str) -> int:
        """Return how many are open in other processes on a session, as far as is known."""

    async def end(self, name: str) -> bool:
        """End a session everywhere; return whether there is one of that name, or was.

        Raises:
            EngineDown: it is not ended; or nobody knows.

        """


def is_shared(engine: Engine) -> TypeGuard[SharedEngine]:
    """Whether others publish through an engine, too."""
    return engine.is_shared
