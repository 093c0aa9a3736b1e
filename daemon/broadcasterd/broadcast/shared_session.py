"""A session that other processes publish to as well: a shared engine has its events.

Its publishers go to the engine at once. A session that nobody reads here has an empty log; the
first reader has it filled, and from then on the session follows the engine. Own and foreign events
come the same way, and the session alone puts them into its log: at once where its task waits for a
message, in that task where it is busy or there is much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from time import perf_counter

import trio
from typing_extensions import override

from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.fresh import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Fresh
from broadcasterd.broadcast.inbox import Failure, Heartbeat, Message, Nudge
from broadcasterd.broadcast.publication import Receipt
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.slices import SLICE, for_each
from broadcasterd.broadcast.subscriber import Subscriber
from broadcasterd.broadcast.subscribers import Subscribers
from broadcasterd.config import Settings
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.core.segment import Entry
from broadcasterd.core.wire import encode_frame
from broadcasterd.engine.port import (
    Arrived,
    EngineDown,
    KeptEvent,
    KeptSession,
    Placed,
    SharedEngine,
)

NOT_FILLED = ""
"""The incarnation of a log that has nothing of what the engine has."""

LINGER_S = 60.0
"""For so long a session is followed that nobody reads or publishes to here: a client may be on its
way back, and what is in memory need not be read again."""

OWN_EVENTS_S = 1.0
"""What a publisher is kept waiting until its events are in the log here, too: whoever asks for them
next finds them, unless the engine is lost in between."""


class _Attempt:
    """One try to fill the log, and what was wrong with it."""

    __slots__ = ("done", "problem")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.problem: EngineDown | None = None


class SharedSession(Session):
    """A session of a shared engine.

    Args:
        name, registry, settings, clock, subject: as of any session.
        log: empty, and of an incarnation without a name, where it is to be filled.
        engine: has its events.
        new_log: makes a log of an incarnation.
        drop: lets go of it.

    """

    def __init__(
        self,
        name: str,
        log: ReplayLog,
        registry: Subscribers,
        *,
        engine: SharedEngine,
        new_log: Callable[[str], ReplayLog],
        drop: Callable[[Session, EndReason], None],
        settings: Settings,
        clock: Clock,
        subject: str | None = None,
    ) -> None:
        super().__init__(name, log, registry, settings=settings, clock=clock, subject=subject)
        self._engine = engine
        self._new_log = new_log
        self._drop = drop
        self._arrived: deque[Arrived] = deque()
        self._arrived_bytes = 0
        self._is_nudged = False
        self._has_followed = False  # or tried to: then the engine goes on to try
        self._attempt: _Attempt | None = None
        self._news: trio.Event | None = None  # while a publisher waits for its events
        self._elsewhere = 0

    @property
    @override
    def streams(self) -> int:
        if self._has_followed:
            self._elsewhere = self._engine.elsewhere(self.name)
        return len(self.subscribers) + self._elsewhere

    @property
    def has(self) -> tuple[str, int]:
        """The incarnation of the log, and the number of its last event."""
        return self.log.incarnation, self.log.last

    @property
    def is_filled(self) -> bool:
        """Whether the log has had all that the engine had."""
        return bool(self.log.incarnation)

    # Publishing

    @override
    async def publish(self, events: Sequence[EncodedEvent]) -> Receipt:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.ending is not None:
            raise self._refusal()
        self.log.check_fit(events)
        self.active_at = self.published_at = self.now()
        if not events:
            return Receipt(0, 0, None, None)
        placed = await self._engine.publish(self.name, events, self.subject)
        self._elsewhere = placed.elsewhere
        self.counts.duplicates += len(placed.duplicates)
        await self._until_here(placed)
        return Receipt(
            len(placed.seqs) - len(placed.duplicates),
            len(placed.duplicates),
            f"{placed.incarnation}-{placed.seqs[0]}",
            f"{placed.incarnation}-{placed.seqs[-1]}",
        )

    async def _until_here(self, placed: Placed) -> None:
        """Wait until events are in the log, if it is one that follows."""
        last = placed.seqs[-1]
        with trio.move_on_after(OWN_EVENTS_S):
            while (
                self.log.last < last
                and self.log.incarnation == placed.incarnation
                and self.ending is None
            ):
                if self._news is None:
                    self._news = trio.Event()
                await self._news.wait()

    # Reading

    @override
    async def ready(self) -> None:
        if self.ending is None and not (self.is_filled and self._has_followed):
            if self._attempt is None:
                self._attempt = _Attempt()
                self._nudge()
            attempt = self._attempt
            await attempt.done.wait()
            if attempt.problem is not None and not self.is_filled:
                raise attempt.problem
        if self.ending is not None:
            raise self._refusal()

    @override
    def attach(self, subscriber: Subscriber) -> None:
        super().attach(subscriber)
        self._engine.attend(self, len(self.subscribers))

    @override
    def closed(self, subscriber: Subscriber, reason: EndReason) -> None:
        super().closed(subscriber, reason)
        self._engine.attend(self, len(self.subscribers))

    # The engine, which calls these

    def take(self, arrived: Arrived) -> None:
        """Take what follows, for the session's task."""
        size = sum([len(kept.event.block) for kept in arrived.events])
        if self._arrived and self._arrived_bytes + size > self.limits.max_history_bytes:
            # It is too busy. What it leaves out the engine retains, within the same bounds.
            self._arrived.clear()
            self._arrived_bytes = 0
            self._engine.catch_up(self)
            return
        if self._inbox.is_waited_for and self._is_little(arrived, size):
            self._take_now(arrived.events)
            return
        self._arrived.append(arrived)
        self._arrived_bytes += size
        self._nudge()

    def _is_little(self, arrived: Arrived, size: int) -> bool:
        """Whether it is done at once: a switch to the task takes as long as all the rest."""
        return (
            arrived.anew is None
            and size < MAX_BATCH_BYTES
            and len(arrived.events) < MAX_BATCH_EVENTS
            and len(self.subscribers) < SLICE
        )

    def _take_now(self, events: Sequence[KeptEvent]) -> None:
        """Log and broadcast what has come, for the task, which waits for a message."""
        try:
            last, now = self.log.last, self.now()
            fresh = Fresh(last)
            fresh.since = perf_counter()
            fresh.entries = [
                self._log(kept.seq, kept.event, now) for kept in events if kept.seq > last
            ]
            self._broadcast_at_once(fresh)
        except Exception as error:  # noqa: BLE001 (the task fails with it)
            self._inbox.send_nowait(Failure(error))
        self._tell_news()

    def over(self) -> None:
        """Take notice that it was ended, by whomever."""
        self._drop(self, EndReason.SESSION_CLOSED)

    def _nudge(self) -> None:
        if not self._is_nudged:
            try:
                self._inbox.send_nowait(Nudge())
            except trio.WouldBlock:
                pass  # it looks after each message
            except trio.ClosedResourceError:
                pass  # it is ending
            else:
                self._is_nudged = True

    # Time and ending

    @override
    def has_expired(self, now: float) -> bool:
        return not self.subscribers and now - self.active_at >= LINGER_S

    @override
    def end(self, reason: EndReason) -> None:
        self._engine.unfollow(self)
        super().end(reason)

    @override
    def close(self) -> None:
        self._engine.unfollow(self)
        super().close()
        self._conclude(None)
        self._tell_news()

    # The session's task

    @override
    async def _handle(self, message: Message) -> None:
        following: Message | None = message
        while following is not None:
            self._is_nudged = False
            match following:
                case Heartbeat():
                    await self._heartbeat()
                case Failure(error):
                    raise error
            if self._attempt is not None:
                await self._fill()
            await self._take_all()
            following = self._next()

    async def _fill(self) -> None:
        problem = None
        self._has_followed = True
        try:
            await self._engine.follow(self)
            await self._take_all()
        except EngineDown as error:
            problem = error
        finally:
            self._conclude(problem)

    def _conclude(self, problem: EngineDown | None) -> None:
        if self._attempt is not None:
            self._attempt.problem = problem
            self._attempt.done.set()
            self._attempt = None

    async def _take_all(self) -> None:
        """Log and broadcast what has come."""
        fresh = Fresh(self.log.last)
        now = self.now()
        while self._arrived:
            arrived = self._arrived.popleft()
            if arrived.anew is not None:
                await self._broadcast(fresh)
                await self._begin_anew(arrived.anew, arrived)
                fresh.offered = self.log.last
                continue
            for kept in arrived.events:
                if kept.seq > self.log.last and fresh.add(self._log(kept.seq, kept.event, now)):
                    await self._spread(fresh)
        self._arrived_bytes = 0
        await self._broadcast(fresh)
        self._tell_news()

    @override
    def _log(self, seq: int, event: EncodedEvent, now: float) -> Entry:
        self.published_at = now  # what others publish is no use of it here: see LINGER_S
        return self.log.put(seq, event.block, now=now, ttl=event.ttl, key=event.key)

    def _tell_news(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    async def _begin_anew(self, session: KeptSession, arrived: Arrived) -> None:
        """Put another log in the place of the one that there is; streams are told of a gap."""
        now, moment = self.now(), self._clock.moment
        before, log = self.log, self._new_log(session.incarnation)
        floor_at = -inf if session.floor_at is None else moment(session.floor_at)
        log.go_on_from(floor=session.floor, last=session.last, floor_at=min(now, floor_at))
        at = -inf
        for kept in arrived.events:
            # No event comes before an older one, whatever the clocks of two servers say.
            at = max(at, min(now, moment(kept.at)))
            event = kept.event
            if event.ttl is None or at + event.ttl > now:
                frame = encode_frame(log.id_of(kept.seq), event.block)
                log.restore(kept.seq, frame, appended_at=at, ttl=event.ttl, key=event.key)
        log.expire(now)
        self.opened_at = min(self.opened_at, moment(session.opened_at))
        self.log = log
        streams = tuple(self.subscribers)
        for stream in streams:
            stream.move_to(log, before)
        before.trim(0)
        # Those that were moved are told soon, in slices.
        await for_each(streams, self._beat)
