"""The open streams, by id: how many there may be, the record of each, and how they end together."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Container
from typing import NamedTuple

import structlog
import trio

from broadcasterd.access.quotas import Quotas
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.slices import for_each
from broadcasterd.broadcast.subscriber import LAGGING_S, Subscriber
from broadcasterd.config import Settings
from broadcasterd.core.event import MAX_RETRY_MS
from broadcasterd.core.reasons import EndReason
from broadcasterd.figures.counts import Counts

log = structlog.stdlib.get_logger(__name__)

ID_BYTES = 8
IDS_AT_ONCE = 64
"""Ids of streams that the kernel is asked for at once: one by one, each would be a system call."""

UNREAD_S = 1.0
"""How long a daemon that stops waits for a subscriber who reads nothing of what it is owed."""


class Laggard:
    """A reader that takes nothing of what is written for it: it resumes by id."""

    def __init__(self, stream: Subscriber, retry_ms: int) -> None:
        self._stream = stream
        self._retry_ms = retry_ms

    @property
    def held_bytes(self) -> int:
        """The bytes that wait for it."""
        return self._stream.pending_bytes

    def unused_since(self, now: float) -> float:
        """Return when it was last known to read."""
        return now - LAGGING_S

    def let_go(self) -> None:
        """Tell it to come back."""
        self._stream.disconnect(EndReason.MEMORY, retry_ms=self._retry_ms)


def jittered(retry_ms: int, randrange: Callable[[int], int]) -> int:
    """Return a reconnection time between ``retry_ms`` and twice that, in milliseconds."""
    return min(retry_ms + randrange(retry_ms + 1), MAX_RETRY_MS)


class Sent(NamedTuple):
    """Events and bytes that were sent on streams."""

    events: int
    bytes: int


class Subscribers:
    """All streams of the daemon. Sessions tell it of each that opens, ends or moves away.

    Args:
        settings: those in force.
        quotas: counts the streams of a client and of a subject.
        clock: tells when a grant has expired.
        counts: what the daemon counts.

    Attributes:
        by_id: the open streams.
        ended_by_reason: how many have ended for each reason.

    """

    def __init__(
        self, settings: Settings, quotas: Quotas, clock: Clock, counts: Counts | None = None
    ) -> None:
        self._settings = settings
        self._quotas = quotas
        self._clock = clock
        self.counts = counts or Counts()
        self.by_id: dict[str, Subscriber] = {}
        self.ended_by_reason: Counter[EndReason] = Counter()
        self._unused_ids: list[str] = []
        self._sent_before = Sent(0, 0)  # on streams that are no longer open
        self._to_drain: set[str] = set()
        self._drained = trio.Event()  # set when none of these streams is left

    def __len__(self) -> int:
        return len(self.by_id)

    def new_id(self) -> str:
        """Return an id for a stream that nobody can guess."""
        if not self._unused_ids:
            random_bytes = secrets.token_bytes(ID_BYTES * IDS_AT_ONCE)
            self._unused_ids = random_bytes.hex(" ", ID_BYTES).split()
        return self._unused_ids.pop()

    @property
    def pending_bytes(self) -> int:
        """Bytes left of writes that were cut short."""
        return sum(subscriber.pending_bytes for subscriber in self.by_id.values())

    def behind(self) -> list[Laggard]:
        """Return the readers for whom bytes wait that they do not take."""
        return [
            Laggard(stream, self.jittered_retry_ms())
            for stream in self.by_id.values()
            if stream.pending_bytes and stream.is_behind
        ]

    @property
    def sent(self) -> Sent:
        """All that was sent on streams by this process, exactly; it is summed up when asked for."""
        events, size = self._sent_before
        for subscriber in self.by_id.values():
            events += subscriber.sent_events
            size += subscriber.sent_bytes
        return Sent(events, size)

    @property
    def are_full(self) -> bool:
        """Whether there are as many streams as there may be in all."""
        return len(self.by_id) >= self._settings.sessions.max_subscribers

    def jittered_retry_ms(self) -> int:
        """Return a reconnection time that spreads clients that come back together."""
        return jittered(self._settings.sessions.retry_ms, random.randrange)

    # Called by sessions

    def opened(self, subscriber: Subscriber) -> bool:
        """Count a stream; return whether there was room for it.

        Others that were admitted at the same time may have come first.
        """
        had_room = not self.are_full
        self.by_id[subscriber.stream_id] = subscriber
        self.counts.streams_opened += 1
        if subscriber.sent_bytes:
            self._count_sent(subscriber, -1)  # by an earlier process
        return self._quotas.stream_opened(subscriber.peer, subscriber.subject) and had_room

    def ended(self, subscriber: Subscriber, reason: EndReason) -> None:
        """Count and record the end of a stream."""
        self.moved(subscriber)
        self.ended_by_reason[reason] += 1
        log.info(
            "stream ended",
            session=subscriber.feed.name,
            stream=subscriber.stream_id,
            peer=subscriber.peer,
            subject=subscriber.subject,
            reason=reason.value,
            duration_s=round(self._clock.now() - subscriber.opened_at, 3),
            last_id=subscriber.feed.log.id_of(subscriber.cursor),
            sent_events=subscriber.sent_events,
            sent_bytes=subscriber.sent_bytes,
        )

    def moved(self, subscriber: Subscriber) -> None:
        """Stop counting a stream, without a record: it goes on in another process."""
        if self.by_id.pop(subscriber.stream_id, None) is not None:
            self._quotas.stream_ended(subscriber.peer, subscriber.subject)
            self._count_sent(subscriber, 1)
        self._to_drain.discard(subscriber.stream_id)
        if not self._to_drain:
            self._drained.set()

    def _count_sent(self, subscriber: Subscriber, sign: int) -> None:
        events, size = self._sent_before
        self._sent_before = Sent(
            events + sign * subscriber.sent_events, size + sign * subscriber.sent_bytes
        )

    # Ending many

    async def wall_was_set(self, seconds: float) -> None:
        """Let streams end when their grants expire by the clock that was set by so much."""

        def translate(subscriber: Subscriber) -> None:
            subscriber.expires_at -= seconds

        await for_each(tuple(self.by_id.values()), translate)

    async def end_expired(self) -> None:
        """End the streams whose grants have expired."""
        now = self._clock.now()

        def cut_if_expired(subscriber: Subscriber) -> None:
            if subscriber.expires_at <= now:
                subscriber.disconnect(EndReason.TOKEN_EXPIRED)

        await for_each(tuple(self.by_id.values()), cut_if_expired)

    async def revoke(self, subjects: Container[str]) -> Counter[str]:
        """End the streams of subjects; return how many those were of each that had any."""
        revoked = [stream for stream in self.by_id.values() if stream.subject in subjects]
        ended = Counter(stream.subject for stream in revoked if stream.subject is not None)
        await for_each(revoked, lambda subscriber: subscriber.disconnect(EndReason.REVOKED))
        return ended

    async def drain(self, *, movable_stay: bool) -> None:
        """Tell subscribers to come back, and wait until they are gone.

        Those that can go on in another process may stay.
        """
        leaving = [s for s in self.by_id.values() if not (movable_stay and s.can_move)]
        self._to_drain = {subscriber.stream_id for subscriber in leaving}

        def finish(subscriber: Subscriber) -> None:
            if subscriber.stream_id in self._to_drain:
                subscriber.finish(EndReason.DRAINING, retry_ms=self.jittered_retry_ms())

        await for_each(leaving, finish)
        while self._to_drain:
            sent = {name: self.by_id[name].sent_bytes for name in self._to_drain}
            self._drained = trio.Event()
            with trio.move_on_after(UNREAD_S):
                await self._drained.wait()
            stuck = [self.by_id[n] for n in self._to_drain if self.by_id[n].sent_bytes == sent[n]]
            await for_each(stuck, lambda stream: stream.disconnect(EndReason.DRAINING))

    def disconnect(self, reason: EndReason) -> None:
        """End every stream now, whatever it is still owed."""
        for subscriber in tuple(self.by_id.values()):
            subscriber.disconnect(reason)
