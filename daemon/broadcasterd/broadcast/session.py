"""One session: the task that owns its log and its subscribers.

Publishers come through a bounded channel, so that a busy session slows them down instead of
growing. The task stamps and encodes each event once, appends it to the log, and hands it to
every subscriber. Everything else (attach, end, expire) is a synchronous method: between two
checkpoints of this task nothing else can run, which is all the mutual exclusion there is. So
while the task waits for a message, whoever publishes a single event does that for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import structlog
import trio

from broadcasterd.broadcast.batch import Batch, Mark
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.fresh import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Fresh
from broadcasterd.broadcast.inbox import Failure, Heartbeat, Inbox, Message
from broadcasterd.broadcast.publication import Publication, Receipt, ReceiptBook
from broadcasterd.broadcast.slices import SLICE, for_each
from broadcasterd.broadcast.subscriber import Subscriber
from broadcasterd.broadcast.subscribers import Subscribers
from broadcasterd.config import Sessions, Settings
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.position import Since, Start
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import LogStatistics, Position, ReplayLog
from broadcasterd.core.segment import Entry
from broadcasterd.errors import Problem, SessionEnded, Unavailable
from broadcasterd.figures.counts import Counts

log = structlog.stdlib.get_logger(__name__)

INBOX_PUBLICATIONS = 16
"""Requests that may wait for the session: beyond it the publisher waits, with its body."""

TURNS = 5
"""Of everybody else, between two batches of a publication: on HTTP/2 a reader needs a few, to take
what is there and to send it. Together they take less than the batch did."""

FINISH_TIMEOUT_S = 10.0
"""How long the subscribers of an ended session may take to read what they are still owed."""


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """A snapshot of one session; times in seconds."""

    name: str
    subscribers: int
    log: LogStatistics
    pending_bytes: int
    age: float
    idle: float


class Session:
    """One session, from the first request that names it to its end.

    Args:
        name: as in the URL.
        log: its events, or what was retained of them; nobody else appends to it.
        registry: told of every stream that opens and ends.
        settings: those in force.
        clock: the daemon's.
        subject: the one on whose account it was opened.
        can_move: whether it, and its streams, can go on in another process.

    """

    def __init__(
        self,
        name: str,
        log: ReplayLog,
        registry: Subscribers,
        *,
        settings: Settings,
        clock: Clock,
        subject: str | None = None,
        can_move: bool = True,
    ) -> None:
        self.name = name
        self.can_move = can_move
        self.log = log
        self.subject = subject
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self.subscribers: dict[Subscriber, None] = {}  # a set in order of arrival
        self.ending: EndReason | None = None
        self.opened_at = self.active_at = self.published_at = self._written_at = self.now()
        self._inbox: Inbox[Message] = Inbox(INBOX_PUBLICATIONS)
        self._fresh: Fresh | None = None  # what publishers logged, and is to be broadcast
        self._mark = Mark()
        self._emptied: trio.Event | None = None  # while the last subscribers are waited for

    @property
    def limits(self) -> Sessions:
        """The ``[sessions]`` settings in force."""
        return self._settings.sessions

    @property
    def streams(self) -> int:
        """How many are open on it, in all processes that share it."""
        return len(self.subscribers)

    def now(self) -> float:
        """Return the moment: seconds on a monotonic clock."""
        return self._clock.now()

    @property
    def counts(self) -> Counts:
        """What the daemon counts."""
        return self._registry.counts

    def statistics(self) -> SessionStatistics:
        """Return a snapshot."""
        now = self.now()
        return SessionStatistics(
            name=self.name,
            subscribers=len(self.subscribers),
            log=self.log.statistics(),
            pending_bytes=sum(s.pending_bytes for s in self.subscribers),
            age=now - self.opened_at,
            idle=0.0 if self.subscribers else now - self.active_at,
        )

    # Publishing

    async def publish(self, events: Sequence[EncodedEvent]) -> Receipt:
        """Put events into the log, in order and all or none; wait until they are there.

        Raises:
            SessionEnded: the session ended first.
            TooLarge: an event cannot be retained; none was accepted.

        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if len(events) == 1 and self._does_at_once(events[0]):
            return await self._publish_at_once(events[0])
        publication = Publication(events)
        try:
            try:
                self._inbox.send_nowait(publication)  # and wait once, for the receipt
            except trio.WouldBlock:
                await self._inbox.send(publication)
        except trio.ClosedResourceError:
            raise self._refusal() from None
        await publication.wait()
        if publication.receipt is None:
            raise publication.problem or self._refusal()
        return publication.receipt

    def _does_at_once(self, event: EncodedEvent) -> bool:
        """Whether the task waits for a message, and all that there is to do is little."""
        return (
            self._inbox.is_waited_for
            and len(event.block) < MAX_BATCH_BYTES
            and len(self.subscribers) < SLICE
            and (self._fresh is None or not self._fresh.is_much)
        )

    async def _publish_at_once(self, event: EncodedEvent) -> Receipt:
        """Publish an event without the task: two switches take as long as all the rest.

        Others may publish to the session at the same time. All of them log their events, and the
        first of them that goes on broadcasts them together.
        """
        try:
            receipt = self._log_for_task(event)
            await trio.lowlevel.cancel_shielded_checkpoint()
            if self._fresh is not None and self._inbox.is_waited_for:  # else the task does it
                self._broadcast_at_once(self._take_fresh())
        except Problem:
            raise
        except Exception as error:  # noqa: BLE001 (the task fails with it)
            self._inbox.send_nowait(Failure(error))
            raise self._refusal() from None
        return receipt

    def _log_for_task(self, event: EncodedEvent) -> Receipt:
        self._check_stays()
        self.log.check_fit((event,))
        if self._fresh is None:
            self._fresh = Fresh(self.log.last)
        now = self._moment_to_log()
        duplicate = self.log.duplicate_of(event.key)
        if duplicate is not None:
            self.counts.duplicates += 1
            return Receipt.of_one(self.log.id_of(duplicate), accepted=False)
        entry = self.log.append(event.block, now=now, ttl=event.ttl, key=event.key)
        self._fresh.add(entry)
        return Receipt.of_one(self.log.id_of(entry.seq), accepted=True)

    def _take_fresh(self) -> Fresh:
        """Return what publishers logged, to go on with."""
        fresh, self._fresh = self._fresh or Fresh(self.log.last), None
        return fresh

    def _refusal(self) -> Problem:
        if self.ending is EndReason.SESSION_CLOSED:
            return SessionEnded(self.name)
        return Unavailable("the session was lost: publish again", retry_after=1, cause=None)

    # Subscribing

    def resolve(self, start: Start) -> Position:
        """Return the position of a stream or a page that asks for ``start``."""
        self.active_at = self.now()
        self.log.expire(self.active_at)
        if isinstance(start, Since):
            start = Since(self._clock.moment(start.moment), start.asked)
        return self.log.resolve(start)

    async def ready(self) -> None:
        """Wait until the log has all that there is, wherever it is kept.

        Raises:
            EngineDown: nobody knows what there is.
            SessionEnded: it was ended.

        """

    def attach(self, subscriber: Subscriber) -> None:
        """Take a subscriber in and start to deliver; it gets all events after its cursor."""
        had_room = len(self.subscribers) < self._settings.sessions.max_subscribers_per_session
        had_room &= self._registry.opened(subscriber)
        self.subscribers[subscriber] = None
        if self.ending is EndReason.CRASHED:
            subscriber.close(self.ending)  # its client comes back, to a new session
        elif self.ending is not None:
            subscriber.disconnect(self.ending)
        elif not had_room:
            subscriber.disconnect(EndReason.MEMORY, retry_ms=self._registry.jittered_retry_ms())
        else:
            try:
                subscriber.open()
            except Exception as error:  # noqa: BLE001 (one stream's failure is its own)
                self.failed(subscriber, error)

    def closed(self, subscriber: Subscriber, reason: EndReason) -> None:
        """Note that a subscriber has closed. Only subscribers call this, once each."""
        self.active_at = self.now()
        self.subscribers.pop(subscriber, None)
        self._registry.ended(subscriber, reason)
        if self._emptied is not None and not self.subscribers:
            self._emptied.set()

    def let_go(self, subscriber: Subscriber) -> None:
        """Let go of a subscriber that goes on in another process."""
        self.subscribers.pop(subscriber, None)
        self._registry.moved(subscriber)

    def failed(self, subscriber: Subscriber, error: Exception) -> None:
        """Record the failure of one stream and close it; the others go on."""
        self.counts.failed_streams += 1
        log.error("a stream failed", session=self.name, stream=subscriber.stream_id, exc_info=error)
        subscriber.close(EndReason.CRASHED)

    # Time and ending

    def resize_log(self) -> None:
        """Retain as much as the settings now in force allow."""
        self.log.resize(
            max_events=self.limits.max_history_events,
            max_bytes=self.limits.max_history_bytes,
            max_age=self.limits.event_ttl,
        )

    def heartbeat_if_due(self, now: float) -> None:
        """Ask for heartbeats if nothing was written for ``heartbeat_interval``."""
        if self.subscribers and now - self._written_at >= self.limits.heartbeat_interval:
            try:
                self._inbox.send_nowait(Heartbeat())
            except trio.WouldBlock:
                pass  # the session is busy writing: better than a heartbeat
            except trio.ClosedResourceError:
                pass  # the session is ending

    @property
    def is_unused(self) -> bool:
        """Whether nobody listens, nobody has ever published, and nobody is about to."""
        return (
            not self.subscribers
            and not self.log.last
            and self.ending is None
            and not self._inbox.statistics().current_buffer_used
        )

    def has_expired(self, now: float) -> bool:
        """Whether nobody has listened or published for ``session_ttl``."""
        return not self.subscribers and now - self.active_at >= self.limits.session_ttl

    def end(self, reason: EndReason) -> None:
        """End the session: accepted events are still delivered, then each stream is told."""
        if self.ending is None:
            self.ending = reason
            self._inbox.close()

    def close(self) -> None:
        """Close every stream and turn every publisher away, now."""
        self.ending = self.ending or EndReason.CRASHED
        self._inbox.close()
        while (message := self._next()) is not None:
            if isinstance(message, Publication):
                message.settle(self._refusal())
        for subscriber in tuple(self.subscribers):
            subscriber.close(self.ending)
        self.log.trim(0)

    async def run(self) -> None:
        """Serve publishers until the session is ended and its subscribers have all events."""
        try:
            while True:
                await self._inbox.wait()
                # No name for the message: it would be kept until the next comes.
                await self._handle(self._inbox.receive_nowait())
        except trio.EndOfChannel:
            await self._finish()
        finally:
            self.close()

    async def _finish(self) -> None:
        assert self.ending is not None  # noqa: S101 (only `end` closes the inbox)
        await self._broadcast(self._take_fresh())
        with trio.move_on_after(FINISH_TIMEOUT_S):
            for subscriber in tuple(self.subscribers):
                subscriber.finish(self.ending)
            while self.subscribers:
                self._emptied = trio.Event()
                await self._emptied.wait()
        for subscriber in tuple(self.subscribers):
            subscriber.disconnect(EndReason.SLOW_CONSUMER)

    # The fan-out

    async def _handle(self, message: Message) -> None:
        """Handle a message, and with it whatever else has come meanwhile."""
        fresh = self._take_fresh()
        if fresh.is_much:
            await self._broadcast(fresh)
        following: Message | None = message
        while following is not None:
            match following:
                case Publication():
                    await self._accept(following, fresh)
                case Heartbeat():
                    await self._heartbeat()
                case Failure(error):
                    raise error
            following = self._next()
        await self._broadcast(fresh)

    async def _accept(self, publication: Publication, fresh: Fresh) -> None:
        """Log a publication and settle it; what is still to be broadcast is added to ``fresh``."""
        outcome: Receipt | Problem | None = None
        try:
            self._check_stays()
            self.log.check_fit(publication.events)
            receipt = ReceiptBook(self.log)
            if not fresh.entries:
                fresh.offered = self.log.last
            now = self._moment_to_log()
            for count, event in enumerate(publication.events, start=1):
                if (seq := self.log.duplicate_of(event.key)) is not None:
                    receipt.note(seq, accepted=False)
                else:
                    entry = self.log.append(
                        event.block, now=now, ttl=event.ttl, key=event.key, more=True
                    )
                    receipt.note(entry.seq, accepted=True)
                    fresh.add(entry)
                if fresh.is_much or count % MAX_BATCH_EVENTS == 0:  # where all are duplicates, too
                    # A body may hold thousands of events: let readers catch up meanwhile.
                    self.log.keep_bounds(now)
                    await self._spread(fresh)
                    now = self._moment_to_log()
            outcome = receipt.issue()
            self.counts.duplicates += outcome.duplicates
        except Problem as problem:
            outcome = problem
        finally:
            self.log.keep_bounds(self.now())
            # It may have been cut short.
            publication.settle(self._refusal() if outcome is None else outcome)

    def _moment_to_log(self) -> float:
        """Return the moment of all events that come into the log until others run."""
        now = self.active_at = self.published_at = self.now()
        self.log.expire(now)
        return now

    def _log(self, seq: int, event: EncodedEvent, now: float) -> Entry:
        """Log an event that the engine has."""
        self.active_at = self.published_at = now
        return self.log.put(seq, event.block, now=now, ttl=event.ttl, key=event.key)

    async def _spread(self, fresh: Fresh) -> None:
        """Broadcast what there is, and let readers catch up before there is more."""
        await self._broadcast(fresh)
        for _ in range(TURNS):
            await trio.lowlevel.checkpoint()
        self._check_stays()

    def _check_stays(self) -> None:
        """Raise Unavailable once the next process has the log as it was: it would not have this."""
        if self.ending is EndReason.DRAINING:
            raise self._refusal()

    async def _broadcast(self, fresh: Fresh) -> None:
        """Deliver what is new to every subscriber; let others run in between."""
        if len(self.subscribers) < SLICE:
            self._broadcast_at_once(fresh)
            return
        if not fresh.entries:
            return
        subscribers, batch = tuple(self.subscribers), self._batch_of(fresh)
        for start in range(0, len(subscribers), SLICE):
            self._deliver(batch, subscribers[start : start + SLICE])
            if start + SLICE <= len(subscribers):
                await trio.lowlevel.checkpoint()
        self.counts.fan_out.record(perf_counter() - fresh.since)

    def _broadcast_at_once(self, fresh: Fresh) -> None:
        """Deliver what is new to every subscriber, of whom there are few."""
        if not fresh.entries:
            return
        if not self.subscribers:  # whoever comes begins with what is in the log
            self.counts.events += len(fresh.take())
            return
        self._deliver(self._batch_of(fresh), tuple(self.subscribers))
        self.counts.fan_out.record(perf_counter() - fresh.since)

    def _batch_of(self, fresh: Fresh) -> Batch:
        """Return what is new as a batch, and leave nothing of it."""
        self._written_at = self.published_at  # a moment ago
        batch = Batch(fresh.take(), fresh.offered, self._mark)
        self._mark = batch.after
        self.counts.events += batch.count
        return batch

    def _deliver(self, batch: Batch, subscribers: Sequence[Subscriber]) -> None:
        # A loop, for it is that of all deliveries: no call of its own for each.
        for subscriber in subscribers:
            try:
                subscriber.deliver(batch)
            except Exception as error:  # noqa: BLE001 (one stream's failure is its own)
                self.failed(subscriber, error)

    async def _heartbeat(self) -> None:
        self._written_at = self.now()
        await for_each(tuple(self.subscribers), self._beat)

    def _beat(self, subscriber: Subscriber) -> None:
        if not subscriber.closed:
            try:
                subscriber.heartbeat()
            except Exception as error:  # noqa: BLE001 (one stream's failure is its own)
                self.failed(subscriber, error)

    def _next(self) -> Message | None:
        return None if self._inbox.is_empty else self._inbox.receive_nowait()
