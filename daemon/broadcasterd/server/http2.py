"""Hypercorn's HTTP/2, corrected where endless streams share one connection.

A browser has one connection for all its streams, a proxy one for all its users: what goes wrong
with one stream stays with that stream. Each correction is held by a test of its name in
``tests/integration/test_tls_http2.py``. ``server/serve.py`` uses :class:`Protocol`, nobody else.

Pinned to Hypercorn 0.18: what is overridden here is not its public interface.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response, StreamClosed
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BUFFER_LOW_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext
from hyperframe.frame import ContinuationFrame, GoAwayFrame, HeadersFrame, PushPromiseFrame
from priority.priority import MissingStreamError
from typing_extensions import override

from broadcasterd.server.headers import RawHeaders, secure
from broadcasterd.server.http1 import Http1, is_target

HeaderFrame = HeadersFrame | ContinuationFrame | PushPromiseFrame

HEADROOM = 4
"""How many times too large a head may be for the connection to outlive it."""

FIELD_OVERHEAD_BYTES = 32
"""What a header field counts beside its name and value (RFC 9113 §6.5.2)."""


class Buffer(StreamBuffer):
    """What a response wrote and its reader has not asked for; it holds the writer back.

    Upstream, the writer goes on whenever little could be taken out, so that a reader who asks
    for nothing at all gets a buffer without a bound. And a response counts as sent when the
    buffer is empty: a drained connection closed before the last of it was written.
    """

    @override
    async def push(self, data: bytes) -> None:
        """Add ``data``; wait until there is room for more."""
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        while len(self.buffer) >= BUFFER_HIGH_WATER and not self._complete:
            await self._paused.clear()
            await self._paused.wait()

    @override
    async def pop(self, max_length: int) -> bytes:
        """Take up to ``max_length`` bytes out."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        return data


class Http2(H2Protocol):
    """One connection, many streams."""

    @property
    def has_begun_a_head(self) -> bool:
        """Whether part of a frame, or of a request's head, is there."""
        return bool(self.connection.incoming_buffer._data or self._header_blocks)  # noqa: SLF001

    async def give_up(self) -> None:
        """Say that the connection ends, and that no request gets lost (RFC 9113 §6.8)."""
        with suppress(h2.exceptions.ProtocolError):  # it was said
            self.connection.close_connection()
        await self._flush()

    @override
    async def initiate(
        self, headers: RawHeaders | None = None, settings: bytes | None = None
    ) -> None:
        """Begin, before anything was received or after an upgrade."""
        # A head that is too large is answered. Only of one that is very much so, h2 does not
        # read on, and has to end the connection with all its streams.
        limit = self.config.h2_max_header_list_size
        self.connection.decoder.max_header_list_size = HEADROOM * limit
        await super().initiate(headers, settings)

    @override
    async def handle(self, event: Event) -> None:
        """Handle what the connection brought; at its end, let go of all who wait to write."""
        await super().handle(event)
        if isinstance(event, Closed):
            for buffer in tuple(self.stream_buffers.values()):
                await buffer.close()
        elif self._header_block_bytes > HEADROOM * self.config.h2_max_header_list_size:
            # h2 counts only the frames of a head that has no end; by bytes, it keeps a megabyte.
            with suppress(h2.exceptions.ProtocolError):
                self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            await self._flush()
            await self.send(Closed())

    @override
    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream's application says; reset the stream if it stopped halfway.

        Upstream, a response that was given up is never ended: its reader waits for ever.
        """
        if isinstance(event, Response):
            secure(event.headers)
        elif isinstance(event, StreamClosed):
            await self._reset_unless_complete(event.stream_id)
        await super().stream_send(event)
        if isinstance(event, StreamClosed):
            await self._rest_if_idle()

    @property
    def _header_blocks(self) -> Sequence[HeaderFrame]:
        """The frames of a request's head that is not complete."""
        return self.connection.incoming_buffer._headers_buffer  # noqa: SLF001

    @property
    def _header_block_bytes(self) -> int:
        return sum(len(frame.data) for frame in self._header_blocks)

    def _has_had_enough(self) -> bool:
        """Whether this connection has brought as many requests as it may."""
        return self.keep_alive_requests >= self.config.keep_alive_max_requests

    async def _rest_if_idle(self) -> None:
        if self.idle:
            await self.send(Closed() if self._has_had_enough() else Updated(idle=True))

    async def _take_request(self, request: h2.events.RequestReceived) -> None:
        if self._has_had_enough():
            # It came too late to know, and may be sent again as it is (RFC 9113 §8.7).
            await self._reset(request.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        status = _refusal(request.headers, self.config.h2_max_header_list_size)
        if status is None:
            await super()._handle_events([request])
        else:
            await self._refuse(request, status)
        if self._has_had_enough():
            await self._go_away()

    async def _refuse(self, request: h2.events.RequestReceived, status: HTTPStatus) -> None:
        headers: RawHeaders = [
            (b":status", b"%d" % status),
            (b"content-length", b"0"),
            *self.config.response_headers("h2"),
        ]
        secure(headers)
        self.connection.send_headers(request.stream_id, headers, end_stream=True)
        await self._flush()
        if not request.stream_ended:
            await self._reset(request.stream_id, h2.errors.ErrorCodes.NO_ERROR)
        self.keep_alive_requests += 1
        await self._rest_if_idle()

    async def _go_away(self) -> None:
        """Say that this was the last request; those under way go on.

        Upstream says so through h2, which takes it for the end of all streams.
        """
        await self._flush()
        last = GoAwayFrame(last_stream_id=self.connection.highest_inbound_stream_id)
        await self.send(RawData(last.serialize()))

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

    @override
    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        try:
            await super()._send_data(stream_id)
        except KeyError:  # it was reset while a write waited
            with suppress(MissingStreamError):
                self.priority.remove_stream(stream_id)
        if buffer is not None and stream_id not in self.stream_buffers:
            await buffer.close()  # its end was sent: the response is over

    @override
    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        await super()._create_stream(request)
        # There was no checkpoint: nothing has been written to the one that upstream made.
        if request.stream_id in self.stream_buffers:
            self.stream_buffers[request.stream_id] = Buffer(self.context.event_class)

    @override
    async def _handle_events(self, events: Sequence[h2.events.Event]) -> None:
        for event in events:
            match event:
                case h2.events.RequestReceived():
                    await self._take_request(event)
                case h2.events.DataReceived() if event.stream_id not in self.streams:
                    await self._refuse_data(event)
                case h2.events.PriorityUpdated():
                    pass  # RFC 9113 §5.3.2 took it back; what it named was kept for ever
                case h2.events.StreamReset():
                    await super()._handle_events([event])
                    await self._rest_if_idle()  # upstream forgets; the connection stayed for ever
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


def _refusal(headers: Iterable[tuple[bytes, bytes]], max_bytes: int) -> HTTPStatus | None:
    """Return how a request is answered that is not for the application."""
    size = 0
    for name, value in headers:
        size += len(name) + len(value) + FIELD_OVERHEAD_BYTES
        if name == b":method" and value == b"CONNECT":
            return HTTPStatus.NOT_IMPLEMENTED
        if name in {b":method", b":path"} and not value.isascii():
            return HTTPStatus.BAD_REQUEST
        if name == b":path" and not is_target(value):
            return HTTPStatus.BAD_REQUEST
    return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if size > max_bytes else None


Given = tuple[
    AppWrapper,
    HypercornConfig,
    WorkerContext,
    TaskGroup,
    ConnectionState,
    bool,
    tuple[str, int] | None,
    tuple[str, int] | None,
    Callable[[Event], Awaitable[None]],
]
"""What a protocol is made of: the application, its surroundings, whether there is TLS, the
addresses of the client and of the server, and where to send what it writes."""


class Protocol(ProtocolWrapper):
    """HTTP/1.1 or HTTP/2, whichever the client speaks: by ALPN or prior knowledge."""

    protocol: Http1 | Http2

    def __init__(self, given: Given, *, http2: bool) -> None:
        # Not upstream's: it makes protocols of its own.
        self._given = given
        self.protocol = Http2(*given) if http2 else Http1(*given)

    @override
    async def initiate(self) -> None:
        """Begin, before anything was received."""
        await self.protocol.initiate()

    @override
    async def handle(self, event: Event) -> None:
        """Handle what the connection brought."""
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as assumed:
            self.protocol = http2 = Http2(*self._given)
            await http2.initiate()
            await http2.handle(RawData(assumed.data))
            # The preface was taken for a request.
            await http2.send(Updated(idle=http2.idle))
