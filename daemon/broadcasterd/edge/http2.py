"""Hypercorn's HTTP/2, corrected where endless streams share one connection.

A browser has one connection for all its streams, a proxy one for all its users: what goes wrong
with one stream stays with that stream. Each correction is held by a test of its name in
``tests/integration/test_tls_http2.py``. ``edge/server.py`` uses :class:`Protocol`, nobody else.

Pinned to Hypercorn 0.18: what is overridden here is not its public interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BUFFER_LOW_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError
from hypercorn.typing import ConnectionState
from priority.priority import MissingStreamError


class Buffer(StreamBuffer):
    """What a response wrote and its reader has not asked for; it holds the writer back.

    Upstream, the writer goes on whenever little could be taken out, so that a reader who asks
    for nothing at all gets a buffer without a bound. And a response counts as sent when the
    buffer is empty: a drained connection closed before the last of it was written.
    """

    async def push(self, data: bytes) -> None:
        """Add ``data``; wait until there is room for more."""
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        while len(self.buffer) >= BUFFER_HIGH_WATER and not self._complete:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        """Take up to ``max_length`` bytes out."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        return data


class Http2(H2Protocol):
    """One connection, many streams."""

    async def handle(self, event: Event) -> None:
        """Handle what the connection brought; at its end, let go of all who wait to write."""
        await super().handle(event)
        if isinstance(event, Closed):
            for buffer in tuple(self.stream_buffers.values()):
                await buffer.close()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream's application says; reset the stream if it stopped halfway.

        Upstream, a response that was given up is never ended: its reader waits for ever.
        """
        if isinstance(event, StreamClosed):
            await self._reset_unless_complete(event.stream_id)
        await super().stream_send(event)

    async def _reset_unless_complete(self, stream_id: int) -> None:
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is None:
            return  # its end was sent
        await buffer.close()
        with suppress(MissingStreamError):
            self.priority.remove_stream(stream_id)
        await self._reset(stream_id, h2.errors.ErrorCodes.CANCEL)

    async def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):  # it is closed
            self.connection.reset_stream(stream_id, code)
        await self._flush()

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        try:
            await super()._send_data(stream_id)
        except KeyError:  # it was reset while a write waited
            with suppress(MissingStreamError):
                self.priority.remove_stream(stream_id)
        if buffer is not None and stream_id not in self.stream_buffers:
            await buffer.close()  # its end was sent: the response is over

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        await super()._create_stream(request)
        # There was no checkpoint: nothing has been written to the one that upstream made.
        if request.stream_id in self.stream_buffers:
            self.stream_buffers[request.stream_id] = Buffer(self.context.event_class)

    async def _handle_events(self, events: Sequence[h2.events.Event]) -> None:
        for event in events:
            match event:
                case h2.events.DataReceived() if event.stream_id not in self.streams:
                    await self._refuse_data(event)
                case h2.events.PriorityUpdated():
                    pass  # RFC 9113 §5.3.2 took it back; what it named was kept for ever
                case h2.events.StreamReset():
                    await super()._handle_events([event])
                    if self.idle:  # upstream forgets, and the connection stays for ever
                        await self.send(Updated(idle=True))
                case _:
                    await super()._handle_events([event])
        await self._flush()

    async def _refuse_data(self, event: h2.events.DataReceived) -> None:
        """Stop a body that was answered before its end (RFC 9113 §8.1).

        Upstream does not find the stream, and the connection ends with all the others.
        """
        self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if event.stream_id not in self.stream_buffers:  # the answer has been sent
            await self._reset(event.stream_id, h2.errors.ErrorCodes.NO_ERROR)


class Protocol(ProtocolWrapper):
    """HTTP/1.1 or HTTP/2, whichever the client speaks: by ALPN, upgrade or prior knowledge."""

    async def initiate(self) -> None:
        """Begin, before anything was received."""
        if isinstance(self.protocol, H2Protocol):
            self.protocol = self._http2()
        await self.protocol.initiate()

    async def handle(self, event: Event) -> None:
        """Handle what the connection brought."""
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as assumed:
            self.protocol = http2 = self._http2()
            await http2.initiate()
            await http2.handle(RawData(assumed.data))
        except H2CProtocolRequiredError as upgrade:
            self.protocol = http2 = self._http2()
            await http2.initiate(upgrade.headers, upgrade.settings)
            if upgrade.data:
                await http2.handle(RawData(upgrade.data))

    def _http2(self) -> Http2:
        return Http2(
            self.app,
            self.config,
            self.context,
            self.task_group,
            ConnectionState(self.state),
            self.ssl,
            self.client,
            self.server,
            self.send,
        )
