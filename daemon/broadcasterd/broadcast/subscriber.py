"""One open stream: a cursor on the session's log, and a way to write.

A subscriber holds no events. While it is *live* the session hands it each batch of frames as
that is encoded, and one write takes it all. When its socket takes less, it reads the log from
its cursor by itself until it is live again. Replay, catching up and live delivery are so one
path, and a slow reader costs no more than a quick one.

:class:`SocketSubscriber` writes to a socket that was taken over (plain HTTP/1.1).
:class:`PullSubscriber` is asked for its next bytes by a response body (TLS, HTTP/2).

Ending has three strengths: ``finish`` sends what is still owed and then says why; ``cut`` says
why now, if the socket takes it; ``close`` only closes. None of them blocks.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from broadcasterd.core.replaylog import Entry, Position
from broadcasterd.core.wire import (
    HEARTBEAT,
    LAST_CHUNK,
    chunk,
    encode_end,
    encode_gap,
    unchunk,
)
from broadcasterd.reasons import EndReason

if TYPE_CHECKING:
    from broadcasterd.broadcast.session import Session

MAX_WRITE_BYTES = 64 * 1024
"""What one write of a reader that catches up joins: more than its socket takes at once."""

MAX_HEARD_BYTES = 16 * 1024
"""A client has nothing to say on a stream; a pipelined request or two may be on its way."""

LAST_WORDS_BUFFER_BYTES = 1024 * 1024
"""The send buffer while the reason is written: room behind whatever a stuck reader left."""

LAST_WORDS_TIMEOUT_S = 5.0
"""How long a response that is told to end may take to come for its last bytes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """New events, encoded once for all: ``frames`` is their frames joined."""

    entries: Sequence[Entry]
    frames: bytes

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Batch:
        """Join the frames of one or more entries that follow each other."""
        return cls(entries, b"".join([entry.frame for entry in entries]))

    @property
    def start(self) -> int:
        """The cursor of a reader that has everything before this batch."""
        return self.entries[0].seq - 1

    @property
    def end(self) -> int:
        """The cursor of a reader that has this batch."""
        return self.entries[-1].seq


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stream is about to end, and after how many milliseconds to come back."""

    reason: EndReason
    retry_ms: int | None

    def encode(self) -> bytes:
        """Return what the client is told."""
        return encode_end(self.reason, retry_ms=self.retry_ms)


class Subscriber(ABC):
    """What the session knows of a stream.

    Args:
        session: whose events it reads.
        stream_id: names the stream in its opening comment and in the log.
        peer: the client's address, for the log.
        position: where it starts.

    """

    __slots__ = (
        "_ending",
        "_gap",
        "closed",
        "cursor",
        "opened_at",
        "peer",
        "sent_bytes",
        "session",
        "stream_id",
    )

    def __init__(self, session: Session, *, stream_id: str, peer: str, position: Position) -> None:
        log = session.log
        if position.cursor < log.floor:  # evicted while the response was on its way
            asked = position.gap.asked if position.gap else log.id_of(position.cursor)
            position = Position(log.floor, log.gap(asked))
        self.session = session
        self.stream_id = stream_id
        self.peer = peer
        self.cursor = position.cursor
        self.opened_at = session.now()
        self.sent_bytes = 0
        self.closed = False
        self._gap = position.gap
        self._ending: Ending | None = None

    @abstractmethod
    def open(self) -> None:
        """Begin to deliver. Called once, when the session has it."""

    @abstractmethod
    def deliver(self, batch: Batch) -> None:
        """Take new events: write them, or note that there are some."""

    @abstractmethod
    def beat(self) -> None:
        """Send a comment, so that neither side takes the idle stream for dead."""

    @abstractmethod
    def finish(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        """Deliver what the log still has for it, say why, and close."""

    @abstractmethod
    def cut(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        """Say why, as far as the socket takes it at once, and close."""

    @abstractmethod
    def close(self, reason: EndReason) -> None:
        """Close without a word. Idempotent, as all three are."""

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """Bytes that it alone keeps in memory: what is left of a write that was cut short."""

    def _check_lag(self) -> None:
        log = self.session.log
        limit = self.session.limits.max_lag_events
        if log.last - self.cursor <= limit and self.cursor >= log.floor:
            return
        if self.session.limits.slow_consumer == "end":
            self.cut(EndReason.SLOW_CONSUMER)
            return
        asked = log.id_of(self.cursor) if self._gap is None else self._gap.asked
        self.cursor = max(log.floor, log.last - limit)
        self._gap = log.gap(asked, after=self.cursor)

    def _take_gap(self) -> bytes:
        """Return the news of a gap, once."""
        gap, self._gap = self._gap, None
        return encode_gap(asked=gap.asked, oldest=gap.oldest) if gap else b""


class SocketSubscriber(Subscriber):
    """A stream on a socket of its own: non-blocking, and connected.

    One parked task waits for the client to hang up. A second one exists only while it catches up.
    """

    __slots__ = ("_catching_up", "_pending", "_socket")

    def __init__(
        self,
        session: Session,
        sock: socket.socket,
        *,
        stream_id: str,
        peer: str,
        position: Position,
    ) -> None:
        super().__init__(session, stream_id=stream_id, peer=peer, position=position)
        self._socket = sock
        self._pending = memoryview(b"")
        self._catching_up = False

    @property
    def pending_bytes(self) -> int:  # noqa: D102
        return len(self._pending)

    def open(self) -> None:  # noqa: D102
        self.session.spawn(self, self._watch)
        self._write_what_is_owed()

    def deliver(self, batch: Batch) -> None:  # noqa: D102
        if self._catching_up or self.cursor != batch.start:
            self._check_lag()
            return
        sent = self._send(batch.frames)
        if sent == len(batch.frames):
            self.cursor = batch.end
        else:
            self._leave_off(batch.entries, sent)
            self._catch_up_soon()

    def beat(self) -> None:  # noqa: D102
        if not self._catching_up:
            self._pending = memoryview(chunk(HEARTBEAT))
            self._write_what_is_owed()

    def finish(self, reason: EndReason, *, retry_ms: int | None = None) -> None:  # noqa: D102
        if not self._catching_up:
            self.cut(reason, retry_ms=retry_ms)
        elif self._ending is None:
            self._ending = Ending(reason, retry_ms)

    def cut(self, reason: EndReason, *, retry_ms: int | None = None) -> None:  # noqa: D102
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
        last_words = chunk(Ending(reason, retry_ms).encode()) + LAST_CHUNK
        self._send(bytes(self._pending) + last_words)
        self.close(reason)

    def close(self, reason: EndReason) -> None:  # noqa: D102
        if self.closed:
            return
        self.closed = True
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._pending = memoryview(b"")
        self.session.forget(self, reason)

    async def _watch(self) -> None:
        """Wait for the hang-up; what the client says meanwhile is nothing to us."""
        heard = 0
        while not self.closed:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            heard += len(data)
            if not data:
                self.close(EndReason.CLIENT_GONE)
            elif heard > MAX_HEARD_BYTES:
                self.close(EndReason.CLIENT_SPOKE)

    def _catch_up_soon(self) -> None:
        if not self.closed and not self._catching_up:
            self._catching_up = True
            self.session.spawn(self, self._catch_up)

    async def _catch_up(self) -> None:
        while not self.closed:
            await trio.lowlevel.wait_writable(self._socket)
            if not self._write_some():
                break

    def _write_what_is_owed(self) -> None:
        if self._write_some():
            self._catch_up_soon()

    def _write_some(self) -> bool:
        """Make one write; return whether there is more to write."""
        if self.closed:
            return False
        if self._pending:
            self._pending = self._pending[self._send(self._pending) :]
            return not self.closed
        log = self.session.log
        if self.cursor < log.floor:
            self._check_lag()
        if gap := self._take_gap():
            self._pending = memoryview(chunk(gap))
            return self._write_some()
        entries = log.since(self.cursor, max_bytes=MAX_WRITE_BYTES)
        if entries:
            self._leave_off(entries, self._send(Batch.of(entries).frames))
            return not self.closed
        self._catching_up = False
        if self._ending is not None:
            self.cut(self._ending.reason, retry_ms=self._ending.retry_ms)
        return False

    def _leave_off(self, entries: Sequence[Entry], sent: int) -> None:
        """Move the cursor past what was sent; keep the rest of a frame that was begun."""
        for entry in entries:
            if sent <= 0:
                return
            self.cursor = entry.seq
            self._pending = memoryview(entry.frame)[sent:]
            sent -= len(entry.frame)

    def _send(self, data: bytes | memoryview) -> int:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.close(EndReason.CLIENT_GONE)
            return 0
        self.sent_bytes += sent
        return sent


class PullSubscriber(Subscriber):
    """A stream whose response body asks for its bytes, and frames and sends them its own way.

    Args:
        abort: ends the response at once, whatever it waits for.

    """

    __slots__ = ("_abort", "_beats", "_bell", "_ring", "_with_us")

    def __init__(
        self,
        session: Session,
        *,
        stream_id: str,
        peer: str,
        position: Position,
        abort: Callable[[], None],
    ) -> None:
        super().__init__(session, stream_id=stream_id, peer=peer, position=position)
        self._abort = abort
        self._ring, self._bell = trio.open_memory_channel[None](1)
        self._beats = False
        self._with_us = False  # the body waits here, it is not busy sending

    @property
    def pending_bytes(self) -> int:  # noqa: D102
        return 0

    def open(self) -> None:
        """Nothing to do: the body comes for its bytes by itself."""

    async def next_bytes(self) -> bytes | None:
        """Wait for the next bytes of the stream (no chunk framing); ``None`` at its end."""
        self._with_us = True
        try:
            while not self.closed:
                if owed := self._take():
                    self.sent_bytes += len(owed)
                    return owed
                if self._ending is not None:
                    self.close(self._ending.reason)
                    return self._ending.encode()
                await self._bell.receive()
        except trio.EndOfChannel:
            pass  # closed while it waited
        finally:
            self._with_us = False
        return None

    def deliver(self, batch: Batch) -> None:  # noqa: ARG002, D102 (it reads the log)
        self._check_lag()
        self._wake()

    def beat(self) -> None:  # noqa: D102
        self._beats = True
        self._wake()

    def finish(self, reason: EndReason, *, retry_ms: int | None = None) -> None:  # noqa: D102
        if self._ending is None:
            self._ending = Ending(reason, retry_ms)
            self._wake()

    def cut(self, reason: EndReason, *, retry_ms: int | None = None) -> None:  # noqa: D102
        self.cursor = self.session.log.last
        self.finish(reason, retry_ms=retry_ms)
        self.session.spawn(self, self._abort_unless_taken)

    def close(self, reason: EndReason) -> None:  # noqa: D102
        if not self.closed:
            self.closed = True
            self._ring.close()
            self.session.forget(self, reason)
            if not self._with_us:
                self._abort()

    def _take(self) -> bytes:
        log = self.session.log
        if self.cursor < log.floor:
            self._check_lag()
        if gap := self._take_gap():
            return gap
        entries = log.since(self.cursor, max_bytes=MAX_WRITE_BYTES)
        beats, self._beats = self._beats, False
        if entries:
            self.cursor = entries[-1].seq
            return b"".join([unchunk(entry.frame) for entry in entries])
        return HEARTBEAT if beats else b""

    def _wake(self) -> None:
        if not self.closed:
            with suppress(trio.WouldBlock):  # it was rung already
                self._ring.send_nowait(None)

    async def _abort_unless_taken(self) -> None:
        await trio.sleep(LAST_WORDS_TIMEOUT_S)
        if self._ending is not None:
            self.close(self._ending.reason)
