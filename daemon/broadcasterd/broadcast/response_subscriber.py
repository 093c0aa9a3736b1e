"""A stream whose response body asks for its bytes: TLS and HTTP/2, where no socket is ours."""

from __future__ import annotations

from contextlib import suppress
from math import inf

import trio
from typing_extensions import override

from broadcasterd.broadcast.batch import Batch
from broadcasterd.broadcast.subscriber import LAGGING_S, MAX_WRITE_BYTES, Ending, Feed, Subscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Position
from broadcasterd.core.wire import HEARTBEAT, unchunk

LAST_WORDS_TIMEOUT_S = 5.0
"""How long a response that is told to end may take to come for its last bytes."""


class ResponseSubscriber(Subscriber):
    """A stream whose response body asks for its bytes, and frames and sends them its own way.

    Args:
        response: the scope in which the body asks and its bytes are sent. Cancelling it ends the
            response at once, whatever that waits for.
        opening: given first, before the history.

    """

    __slots__ = (
        "_beats",
        "_bell",
        "_is_cut",
        "_opening",
        "_response",
        "_ring",
        "_sending",
        "_took_at",
        "_with_us",
    )

    def __init__(
        self,
        feed: Feed,
        response: trio.CancelScope,
        *,
        stream_id: str,
        peer: str,
        position: Position,
        subject: str | None = None,
        expires_at: float = inf,
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
        self._response = response
        self._opening = opening
        self._ring, self._bell = trio.open_memory_channel[None](1)
        self._beats = False
        self._is_cut = False  # it gets no more events
        self._with_us = False  # the body waits here, it is not busy sending
        self._sending = 0  # bytes that the body took last
        self._took_at = self.opened_at

    @property
    @override
    def pending_bytes(self) -> int:
        return 0 if self._with_us else self._sending

    @property
    @override
    def is_behind(self) -> bool:
        waited = self.feed.now() - self._took_at
        return not self._with_us and not self._is_cut and waited >= LAGGING_S

    @override
    def open(self) -> None:
        """Nothing to do: the body comes for its bytes by itself."""

    async def next_bytes(self) -> bytes | None:
        """Wait for the next bytes of the stream (no chunk framing); ``None`` at its end."""
        self._with_us = True
        try:
            while not self.closed:
                if owed := self._take():
                    self._sending = len(owed)
                    self._took_at = self.feed.now()
                    self._sent_bytes += self._sending
                    return owed
                if self._ending is not None:
                    self._response.deadline = inf  # it has come for its last bytes
                    self.close(self._ending.reason)
                    return self._ending.encode()
                await self._bell.receive()
        except trio.EndOfChannel:
            pass  # closed while it waited
        finally:
            self._with_us = False
        return None

    @override
    def deliver(self, batch: Batch) -> None:
        if not self.closed:
            self._check_lag(batch.offered)
            self._wake()

    @override
    def heartbeat(self) -> None:
        self._beats = True
        self._wake()

    @override
    def finish(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        if self._ending is None:
            self._ending = Ending(reason, retry_ms)
            self._wake()

    @override
    def disconnect(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        if self.closed or self._is_cut:
            return
        self._is_cut = True
        self.finish(reason, retry_ms=retry_ms)
        self._response.deadline = trio.current_time() + LAST_WORDS_TIMEOUT_S

    @override
    def close(self, reason: EndReason) -> None:
        if not self.closed:
            self.closed = True
            self._ring.close()
            # If the time for its last bytes was over, that is no hang-up of the client.
            self.feed.closed(self, self._ending.reason if self._is_cut and self._ending else reason)
            if not self._with_us:
                self._response.cancel()

    def _take(self) -> bytes:
        if self._opening:
            opening, self._opening = self._opening, b""
            return opening
        if self._is_cut:
            return b""
        log = self.feed.log
        if self.cursor < log.floor:
            self._check_lag(log.last)
        if gap := self._take_gap():
            return gap
        run = log.run_after(self.cursor, max_bytes=MAX_WRITE_BYTES)
        beats, self._beats = self._beats, False
        if run is not None:
            self.cursor = run.end
            self._sent_events += run.count
            return b"".join([unchunk(frame) for frame in run])
        self._is_up_to_date()
        return HEARTBEAT if beats else b""

    def _wake(self) -> None:
        if not self.closed:
            with suppress(trio.WouldBlock):  # it was rung already
                self._ring.send_nowait(None)
