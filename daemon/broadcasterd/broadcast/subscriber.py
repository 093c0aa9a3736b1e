"""One open stream as its session sees it: a cursor on the log, and a way to write.

A subscriber holds no events. While it is *live* the session hands it each batch of frames once
encoded, and one write takes the batch. When its client takes less, it reads the log from its
cursor by itself until it is live again. So replay, catching up and live delivery are one path,
and a slow reader costs no more than a quick one.

There are two: a socket of its own (``socket_subscriber.py``, HTTP/1.1, and beside it HTTP/1.0), and
one that a response body asks for its bytes (``response_subscriber.py``, HTTP/2).

Ending has three strengths: ``finish`` sends what is still owed and then says why; ``disconnect``
says why now, if the client takes it; ``close`` only closes. None of them blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import Protocol

from broadcasterd.broadcast.batch import Batch
from broadcasterd.config import Sessions
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Gap, Position, ReplayLog
from broadcasterd.core.wire import encode_end, encode_gap, encode_priming
from broadcasterd.figures.counts import Counts

LAGGING_S = 2.0
"""A client that takes nothing for so long, though there is something, lags."""

MAX_WRITE_BYTES = 64 * 1024
"""Bytes that one write of a reader has while it catches up: more than a socket takes at once."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stream is about to end, and after how many milliseconds to come back."""

    reason: EndReason
    retry_ms: int | None

    def encode(self) -> bytes:
        """Return the bytes that tell the client."""
        return encode_end(self.reason, retry_ms=self.retry_ms)


class Feed(Protocol):
    """A session in the eyes of its subscribers: they read from it, and tell it of their end."""

    name: str

    @property
    def can_move(self) -> bool:
        """Whether its streams can go on in another process."""

    @property
    def log(self) -> ReplayLog:
        """The events."""

    @property
    def limits(self) -> Sessions:
        """The ``[sessions]`` settings in force."""

    @property
    def counts(self) -> Counts:
        """What the daemon counts."""

    def now(self) -> float:
        """Return seconds on a monotonic clock."""

    def closed(self, subscriber: Subscriber, reason: EndReason) -> None:
        """Note that a subscriber has closed. Called once."""

    def failed(self, subscriber: Subscriber, error: Exception) -> None:
        """Record that a subscriber failed, and close it."""


class Subscriber(ABC):
    """One open stream, from its place in the log to its end.

    Args:
        feed: has the events that it reads.
        stream_id: names the stream in its opening comment and in the log.
        peer: the client's address, for the log.
        position: where it starts.
        subject: the one whom the stream is open for, if the grant that opened it names any.
        expires_at: the moment on the feed's clock at which that grant expires.

    """

    __slots__ = (
        "_ending",
        "_gap",
        "_max_lag",
        "_sent_bytes",
        "_sent_events",
        "closed",
        "cursor",
        "expires_at",
        "feed",
        "opened_at",
        "peer",
        "stream_id",
        "subject",
    )

    def __init__(
        self,
        feed: Feed,
        *,
        stream_id: str,
        peer: str,
        position: Position,
        subject: str | None = None,
        expires_at: float = inf,
    ) -> None:
        log = feed.log
        position = log.renewed(position)  # the response was on its way for a while
        self.feed = feed
        self.stream_id = stream_id
        self.peer = peer
        self.subject = subject
        self.expires_at = expires_at
        self.cursor = position.cursor
        self.opened_at = feed.now()
        self._sent_bytes = 0
        self._sent_events = 0
        self.closed = False
        self._gap = position.gap
        self._ending: Ending | None = None
        # A replay starts far behind, and is slow only if it falls back from there.
        self._max_lag = log.last - self.cursor + feed.limits.max_lag_events

    @property
    def can_move(self) -> bool:
        """Whether it can go on in another process."""
        return False

    @property
    def sent_events(self) -> int:
        """The events that it was sent, whole."""
        return self._sent_events

    @property
    def sent_bytes(self) -> int:
        """All that it was sent, with what belongs to no event."""
        return self._sent_bytes

    @abstractmethod
    def open(self) -> None:
        """Begin to deliver. Called once, when the session has the subscriber."""

    @abstractmethod
    def deliver(self, batch: Batch) -> None:
        """Take new events: write them, or note that there are some. Nothing, if it has closed."""

    @abstractmethod
    def heartbeat(self) -> None:
        """Send a comment, so that neither side takes the idle stream for dead."""

    @abstractmethod
    def finish(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        """Deliver what the log still has for it, say why, and close."""

    @abstractmethod
    def disconnect(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        """Say why, as far as the socket takes it at once, and close."""

    @abstractmethod
    def close(self, reason: EndReason) -> None:
        """Close without a word. Idempotent, as all three are."""

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """Bytes that it alone keeps in memory: the rest of a write that was cut short."""

    @property
    @abstractmethod
    def is_behind(self) -> bool:
        """Whether bytes wait for it and its client has taken nothing for ``LAGGING_S``."""

    def move_to(self, log: ReplayLog, before: ReplayLog) -> None:
        """Go on in a log that takes the place of another. The client is told of a gap, soon."""
        asked = before.id_of(self.cursor) if self._gap is None else self._gap.asked
        self.cursor = min(max(self.cursor, log.floor), log.last)
        self._gap = Gap(asked, None)

    def _is_up_to_date(self) -> None:
        """Note that it has all events: from now on the ordinary limit holds."""
        self.cursor = self.feed.log.last  # events missing at the end expired by themselves
        self._max_lag = self.feed.limits.max_lag_events

    def _check_lag(self, offered: int) -> None:
        """End the stream, or skip events, if it is too far behind.

        Args:
            offered: the last event that it could have taken before now.

        """
        log, limits = self.feed.log, self.feed.limits
        if offered - self.cursor <= self._max_lag and self.cursor >= log.floor:
            return
        if limits.slow_consumer == "end":
            self.disconnect(EndReason.SLOW_CONSUMER)
            return
        asked = log.id_of(self.cursor) if self._gap is None else self._gap.asked
        self.cursor = max(log.floor, log.last - limits.max_lag_events)
        self._gap = log.gap(asked, after=self.cursor)

    def _take_gap(self) -> bytes:
        """Return the news of a gap, once.

        Where no event follows whose id would tell that it was told, its position does: else a
        client that comes back would be told again.
        """
        gap, self._gap = self._gap, None
        if gap is None:
            return b""
        self.feed.counts.gaps += 1
        log = self.feed.log
        self.cursor = max(self.cursor, log.floor)  # more may have left the log meanwhile
        gap = log.gap(gap.asked, after=self.cursor)
        news = encode_gap(asked=gap.asked, oldest=gap.oldest)
        return news if gap.oldest else news + encode_priming(log.id_of(self.cursor))
