"""A stream on a socket of its own, plain or TLS: one non-blocking write delivers.

The stream has no task: the poller tells it when the client hangs up, and, while it catches up,
when the socket takes more.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from math import inf
from typing import Self

from typing_extensions import override

from broadcasterd.broadcast.batch import Batch, Mark
from broadcasterd.broadcast.poller import Poller
from broadcasterd.broadcast.subscriber import LAGGING_S, MAX_WRITE_BYTES, Ending, Feed, Subscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Position, ReplayLog
from broadcasterd.core.run import Run, UnchunkedRun
from broadcasterd.core.wire import HEARTBEAT, LAST_CHUNK, chunk

MAX_HEARD_BYTES = 16 * 1024
"""A client has nothing to say on a stream; a pipelined request or two may be on its way."""

LAST_WORDS_BUFFER_BYTES = 1024 * 1024
"""The send buffer while the reason is written: room behind the bytes that a stuck reader left."""


_START = Mark()

_NOTHING = memoryview(b"")  # one for all: most of the many streams have nothing pending


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a stream: beside its socket, all that another process needs to go on with it.

    Attributes:
        cursor: the last event that was sent whole.
        pending: the rest of a write that was cut short.
        asked: the id that was asked for, where a gap is still to be told.
        max_lag: events that it may be behind now.
        opened_s: for how many seconds it has been open.

    """

    cursor: int
    pending: bytes
    asked: str | None
    max_lag: int
    opened_s: float
    sent_bytes: int
    sent_events: int


class SocketSubscriber(Subscriber):
    """A stream on a socket of its own: non-blocking, and connected. Its body comes in chunks.

    Args:
        sock: the socket.
        poller: tells when there is something to read, or room to write.
        head, opening: are sent first, the opening as a chunk, before the history.

    """

    __slots__ = (
        "_catching_up",
        "_heard",
        "_live_at",
        "_live_since",
        "_pending",
        "_poller",
        "_socket",
        "_took_at",
    )

    _heartbeat = chunk(HEARTBEAT)
    _end_of_body = LAST_CHUNK

    def __init__(
        self,
        feed: Feed,
        sock: socket.socket,
        poller: Poller,
        *,
        stream_id: str,
        peer: str,
        position: Position,
        subject: str | None = None,
        expires_at: float = inf,
        head: bytes = b"",
        opening: bytes = b"",
    ) -> None:
        super().__init__(
            feed,
            stream_id=stream_id,
            peer=peer,
            position=position,
            subject=subject,
            expires_at=expires_at,
        )
        self._socket = sock
        self._poller = poller
        self._pending = memoryview(head + self._framed(opening)) if opening else _NOTHING
        self._catching_up = False
        self._live_at: Mark | None = None  # where it is, if all that it needs is the next batch
        self._live_since = _START
        self._heard = 0
        self._took_at = self.opened_at  # when it last had room, while it catches up

    @classmethod
    def restored(
        cls,
        feed: Feed,
        sock: socket.socket,
        poller: Poller,
        *,
        stream_id: str,
        peer: str,
        progress: Progress,
        subject: str | None,
        expires_at: float,
    ) -> Self:
        """Return a stream that another process began, to go on with it where it stopped."""
        asked, cursor = progress.asked, progress.cursor
        stream = cls(
            feed,
            sock,
            poller,
            stream_id=stream_id,
            peer=peer,
            position=Position(cursor, None if asked is None else feed.log.gap(asked, after=cursor)),
            subject=subject,
            expires_at=expires_at,
        )
        stream._pending = memoryview(progress.pending)
        stream._max_lag = progress.max_lag
        stream.opened_at -= progress.opened_s
        stream._sent_bytes, stream._sent_events = progress.sent_bytes, progress.sent_events
        return stream

    def detach(self) -> tuple[socket.socket, Progress]:
        """Let go of the socket as it is, and say where the stream stopped."""
        progress = Progress(
            cursor=self.cursor,
            pending=bytes(self._pending),
            asked=None if self._gap is None else self._gap.asked,
            max_lag=self._max_lag,
            opened_s=self.feed.now() - self.opened_at,
            sent_bytes=self.sent_bytes,
            sent_events=self.sent_events,
        )
        self.closed = True
        self._is_not_live()
        self._poller.remove(self._socket)
        return self._socket, progress

    @property
    @override
    def can_move(self) -> bool:
        is_plain = not isinstance(self._socket, ssl.SSLSocket)  # TLS cannot be handed over
        return self.feed.can_move and is_plain and not self.closed and self._ending is None

    @property
    @override
    def pending_bytes(self) -> int:
        return len(self._pending)

    @property
    @override
    def is_behind(self) -> bool:
        return self._catching_up and self.feed.now() - self._took_at >= LAGGING_S

    @override
    def open(self) -> None:
        self._poller.add(self._socket, self)
        self._write_what_is_owed()

    @property
    @override
    def sent_events(self) -> int:
        live_at = self._live_at or self._live_since
        return self._sent_events + live_at.events - self._live_since.events

    @property
    @override
    def sent_bytes(self) -> int:
        live_at = self._live_at or self._live_since
        return self._sent_bytes + live_at.bytes - self._live_since.bytes

    @override
    def deliver(self, batch: Batch) -> None:
        if self._live_at is batch.before:
            # The inner loop of all: no call but the one, and nothing to count.
            try:
                sent = self._socket.send(batch.frames)
            except OSError as error:
                sent = self._not_sent(error)
            if sent == batch.size:
                self._live_at = batch.after
                self.cursor = batch.end
            else:
                self._is_not_live()
                self._sent_bytes += sent
                self._leave_off(batch, sent)
                self._catch_up_soon()
        elif self.closed:
            pass
        elif self._catching_up:
            self._check_lag(batch.offered)
        elif self.cursor == batch.start:
            sent = self._send(batch.frames)
            self._leave_off(batch, sent)
            if sent == batch.size:
                self._is_live(batch)
            else:
                self._catch_up_soon()
        elif self.cursor < batch.end:
            self._write_what_is_owed()

    @override
    def move_to(self, log: ReplayLog, before: ReplayLog) -> None:
        self._is_not_live()
        super().move_to(log, before)

    @override
    def heartbeat(self) -> None:
        if not self._catching_up:
            self._pending = memoryview(self._heartbeat)
            self._write_what_is_owed()

    @override
    def finish(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        if self._ending is None:
            self._ending = Ending(reason, retry_ms)
            if not self._catching_up:
                self._write_what_is_owed()

    @override
    def disconnect(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        if self.closed:
            return
        # The reader may be stuck behind a full buffer. A larger one takes the last words all
        # the same, and the kernel delivers them after the close, if the reader ever reads on.
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2**31 - 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LAST_WORDS_BUFFER_BYTES)
        except OSError:
            self.close(EndReason.CLIENT_GONE)
            return
        last_words = self._framed(Ending(reason, retry_ms).encode()) + self._end_of_body
        self._send(bytes(self._pending) + last_words)
        self.close(reason)

    @override
    def close(self, reason: EndReason) -> None:
        if self.closed:
            return
        self.closed = True
        self._is_not_live()
        self._poller.remove(self._socket)
        self._socket.close()
        self._pending = _NOTHING
        self.feed.closed(self, reason)

    # Called by the poller

    def on_readable(self) -> None:
        """Notice a hang-up; anything else from the client is ignored, up to a limit."""
        try:
            data = self._socket.recv(MAX_HEARD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard += len(data)
        if not data:
            self.close(EndReason.CLIENT_GONE)
        elif self._heard > MAX_HEARD_BYTES:
            self.close(EndReason.CLIENT_SPOKE)

    def on_writable(self) -> None:
        """Catch up."""
        self._took_at = self.feed.now()
        if not self._write_some() and not self.closed:
            self._poller.await_room(self._socket, wanted=False)

    def on_failure(self, error: Exception) -> None:
        """Have the failure recorded."""
        self.feed.failed(self, error)

    def _is_live(self, batch: Batch) -> None:
        """Note that it has a batch, and all before: the next one is all that it needs."""
        self._live_at = self._live_since = batch.after

    def _is_not_live(self) -> None:
        """Count what it was sent while it was live. From now on it goes by its cursor alone."""
        if self._live_at is not None:
            self._sent_events, self._sent_bytes = self.sent_events, self.sent_bytes
            self._live_at, self._live_since = None, _START

    def _catch_up_soon(self) -> None:
        if not self.closed and not self._catching_up:
            self._catching_up = True
            self._took_at = self.feed.now()
            self._poller.await_room(self._socket, wanted=True)

    def _write_what_is_owed(self) -> None:
        if not self.closed and self._write_some():
            self._catch_up_soon()

    def _write_some(self) -> bool:
        """Write what the socket takes now, up to a limit; return whether there is more."""
        if self._live_at is not None:
            self._is_not_live()
        if self._pending:
            self._pending = self._pending[self._send(self._pending) :]
        log = self.feed.log
        if self.cursor < log.floor:
            self._check_lag(log.last)
        if self._gap is not None and not self._pending and (gap := self._take_gap()):
            self._pending = memoryview(self._framed(gap))
            self._pending = self._pending[self._send(self._pending) :]
        if self.closed or self._pending:
            return not self.closed
        if self.cursor < log.last and (run := self._next_run()) is not None:
            sent = self._send(run.frames)
            self._leave_off(run, sent)
            if self._pending or self.cursor < log.last:
                return not self.closed
        self._catching_up = False
        self._pending = _NOTHING  # an empty view would keep its whole frame
        self._is_up_to_date()
        if self._ending is not None:
            self.disconnect(self._ending.reason, retry_ms=self._ending.retry_ms)
        return False

    def _framed(self, data: bytes) -> bytes:
        """Return bytes as the body has them."""
        return chunk(data)

    def _next_run(self) -> Run | UnchunkedRun | None:
        """Return the events that follow the cursor, up to a limit."""
        return self.feed.log.run_after(self.cursor, max_bytes=MAX_WRITE_BYTES)

    def _leave_off(self, events: Batch | Run | UnchunkedRun, sent: int) -> None:
        """Move the cursor past what was sent; keep the rest of a frame that was begun."""
        if sent:
            cut = events.cut(sent)
            self.cursor = cut.cursor
            self._sent_events += cut.count
            self._pending = cut.rest or _NOTHING  # an empty view would keep its whole frame

    def _send(self, data: bytes | memoryview) -> int:
        try:
            sent = self._socket.send(data)
        except OSError as error:
            sent = self._not_sent(error)
        self._sent_bytes += sent
        return sent

    def _not_sent(self, error: OSError) -> int:
        """Note why nothing was sent: there is no room, or the client is gone."""
        if not isinstance(error, BlockingIOError):
            self.close(EndReason.CLIENT_GONE)
        return 0
