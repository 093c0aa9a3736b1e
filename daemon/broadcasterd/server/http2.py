"""Hypercorn's HTTP/2, corrected where endless streams share one connection.

A browser has one connection for all its streams, a proxy one for all its users: what goes wrong
with one stream stays with that stream. Each correction is held by a test of its name in
``tests/integration/test_tls_http2.py``. ``serve.py`` uses :class:`Http2Connection`, nobody else.

Pinned to Hypercorn 0.18: what is overridden here is not its public interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from math import inf

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BUFFER_LOW_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.typing import Event as IOEvent
from hyperframe.frame import (
    ContinuationFrame,
    GoAwayFrame,
    HeadersFrame,
    PushPromiseFrame,
    WindowUpdateFrame,
)
from priority.priority import MissingStreamError
from typing_extensions import override

from broadcasterd.config import Settings
from broadcasterd.memory.account import Holding
from broadcasterd.memory.holdings import (
    HTTP2_BYTES,
    HTTP2_REQUEST_BYTES,
    Holdings,
)
from broadcasterd.server import http1
from broadcasterd.server.headers import RawHeaders, is_host, secure
from broadcasterd.server.http1 import Phase
from broadcasterd.server.http2_frames import Batches, Calm, Frames
from broadcasterd.server.sockets import ConnectionSocket, SocketStream, TlsSocket
from broadcasterd.server.tasks import Tasks

TOLD_BYTES = 8 * 1024
"""A reader tells its peer of so many bytes at once: an eighth of a stream's window."""

HeaderFrame = HeadersFrame | ContinuationFrame | PushPromiseFrame

HEADROOM = 4
"""How many times too large a head may be for the connection to outlive it."""

FIELD_OVERHEAD_BYTES = 32
"""Bytes that a header field counts beside its name and value (RFC 9113 §6.5.2)."""


class Buffer(StreamBuffer):
    """What a response wrote and its reader has not asked for; it holds the writer back.

    Upstream, the writer goes on whenever little could be taken out, so that a reader who asks
    for nothing at all gets a buffer without a bound. And a response counts as sent when the
    buffer is empty: a drained connection closed before the last of it was written.

    It counts what the request holds, until its answer is sent: the request itself, what came of its
    body and was not taken, and what is in the buffer.

    Args:
        event_class: Hypercorn's.
        holdings: has the account, and may want it let go of.
        cut: gives the request up.

    """

    def __init__(
        self, event_class: type[IOEvent], holdings: Holdings, cut: Callable[[], None]
    ) -> None:
        super().__init__(event_class)
        self._holdings = holdings
        self._cut = cut
        self._took_at = trio.current_time()
        self._held = Holding(holdings)
        self._held.hold(HTTP2_REQUEST_BYTES)
        self._is_closed = False
        holdings.add(self)

    @property
    def held_bytes(self) -> int:
        """The bytes that the request holds."""
        return self._held.bytes

    def unused_since(self, _now: float) -> float:
        """Return since when its reader has asked for nothing of what is there."""
        return self._took_at if self.buffer else inf

    def let_go(self) -> None:
        """Give the request up."""
        self._cut()

    @override
    async def close(self) -> None:
        """Let go of it, and of whoever waits to write."""
        self._holdings.discard(self)
        self._held.hold(0)
        self._is_closed = True
        await super().close()

    def count(self, size: int) -> None:
        """Count so many bytes more, or fewer; of a request that is over nothing is counted."""
        if not self._is_closed:
            self._held.take(size)

    @override
    async def push(self, data: bytes) -> None:
        """Add ``data``; wait until there is room for more."""
        if self._complete:
            raise BufferCompleteError
        if not self.buffer:
            self._took_at = trio.current_time()
        self.count(len(data))
        self.buffer.extend(data)
        while len(self.buffer) >= BUFFER_HIGH_WATER and not self._complete:
            await self._paused.clear()
            await self._paused.wait()

    @override
    async def pop(self, max_length: int) -> bytes:
        """Take up to ``max_length`` bytes out."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if data:
            self._took_at = trio.current_time()
            self.count(-len(data))
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        return data


class Http2(H2Protocol):
    """One connection, many streams."""

    connection: Frames

    holdings: Holdings
    stream_buffers: dict[int, Buffer]  # type: ignore[assignment] # all of them are ours
    _batches: Batches
    _calm: Calm
    _untold: Counter[int]  # bytes of bodies that were taken, by stream

    @property
    def has_begun_a_head(self) -> bool:
        """Whether part of a frame, or of a request's head, is there."""
        return bool(self.head_bytes)

    @property
    def head_bytes(self) -> int:
        """Bytes of a frame, and of a request's head, that are there in part."""
        return len(self.connection.incoming_buffer._data) + self._header_block_bytes  # noqa: SLF001

    @property
    def has_unread_answers(self) -> bool:
        """Whether bytes of an answer wait for its reader to ask for them."""
        return any(buffer.buffer for buffer in self.stream_buffers.values())

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
        made = self.connection
        self.connection = Frames(config=made.config)
        self.connection.local_settings = made.local_settings
        self.connection.DEFAULT_MAX_INBOUND_FRAME_SIZE = self.config.h2_max_inbound_frame_size
        self._batches = Batches()
        self._calm = Calm(self.connection, trio.current_time)
        self._untold = Counter()
        # A head that is too large is answered. Only of one that is very much so, h2 does not
        # read on, and has to end the connection with all its streams.
        limit = self.config.h2_max_header_list_size
        self.connection.decoder.max_header_list_size = HEADROOM * limit
        await super().initiate(headers, settings)

    @override
    async def handle(self, event: Event) -> None:
        """Handle what the connection brought; at its end, let go of all who wait to write."""
        if isinstance(event, RawData):
            pieces = self._batches.cut(event.data)
            self.connection.resets += self._batches.resets
            self._batches.resets = 0
            is_kept = self._calm.is_kept()
            for data in pieces:
                if not is_kept:
                    break
                await super().handle(RawData(data))
                if self.closed:
                    return
                await trio.lowlevel.cancel_shielded_checkpoint()
                is_kept = self._calm.is_kept()
            if not is_kept:
                await self._calm_down()
                return
        else:
            await super().handle(event)
        if isinstance(event, Closed):
            for buffer in tuple(self.stream_buffers.values()):
                await buffer.close()
        elif self._header_block_bytes > HEADROOM * self.config.h2_max_header_list_size:
            # h2 counts only the frames of a head that has no end; by bytes, it keeps a megabyte.
            await self._calm_down()

    async def _calm_down(self) -> None:
        """End a connection that costs too much."""
        with suppress(h2.exceptions.ProtocolError):
            self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        await self._flush()
        await self.send(Closed())

    async def body_taken(self, stream_id: int, size: int) -> None:
        """Let the peer send more of a body: its reader took some of it (RFC 9113 §5.2).

        A publisher who is held back stops its own stream so. The connection's window is another
        matter, and opens at once: the other streams share it.
        """
        self._count(stream_id, -size)
        await self._tell(stream_id, size)

    def _count(self, stream_id: int, size: int) -> None:
        if (buffer := self.stream_buffers.get(stream_id)) is not None:
            buffer.count(size)

    async def _tell(self, stream_id: int, size: int) -> None:
        self._untold[stream_id] += size
        if self._untold[stream_id] >= TOLD_BYTES:
            with suppress(h2.exceptions.ProtocolError, KeyError):  # it is over
                told = self._untold.pop(stream_id)
                self.connection.increment_flow_control_window(told, stream_id)
            await self._flush()

    @override
    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream's application says; reset the stream if it stopped halfway.

        Upstream, a response that was given up is never ended: its reader waits for ever.
        """
        if isinstance(event, Response):
            secure(event.headers)
        elif isinstance(event, StreamClosed):
            self._untold.pop(event.stream_id, None)
            await self._reset_unless_complete(event.stream_id)
        elif isinstance(event, Body):
            await self._send_body(event)
            return
        await super().stream_send(event)
        if isinstance(event, StreamClosed):
            await self._rest_if_idle()

    async def _send_body(self, event: Body) -> None:
        """Send a piece of an answer, which is held meanwhile, and copied as it is asked for."""
        data = memoryview(event.data)
        self._count(event.stream_id, len(data))
        for start in range(0, len(data), BUFFER_HIGH_WATER):
            piece = Body(event.stream_id, data[start : start + BUFFER_HIGH_WATER])  # type: ignore[arg-type]
            await super().stream_send(piece)
        self._count(event.stream_id, -len(data))

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
        with suppress(h2.exceptions.ProtocolError):  # it was given up
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

    def cut(self, stream_id: int) -> None:
        """Give up a request whose answer nobody reads."""
        self.task_group.spawn(self._cut, stream_id)

    async def _cut(self, stream_id: int) -> None:
        await self._reset_unless_complete(stream_id)
        await self._close_stream(stream_id)
        await self._rest_if_idle()

    async def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):  # it is closed
            self.connection.reset_stream(stream_id, code)
        await self._flush()

    @override
    async def _send_data(self, stream_id: int) -> None:
        self._calm.data_sent()
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
            self.stream_buffers[request.stream_id] = Buffer(
                self.context.event_class, self.holdings, partial(self.cut, request.stream_id)
            )

    @override
    async def _handle_events(self, events: Sequence[h2.events.Event]) -> None:
        # Looked at before a task is made for any of them: nobody waits for these answers.
        given_up = {e.stream_id for e in events if isinstance(e, h2.events.StreamReset)}
        windows: set[int] = set()
        for event in events:
            if isinstance(event, h2.events.WindowUpdated):
                windows.add(event.stream_id or 0)
            elif isinstance(event, h2.events.RemoteSettingsChanged):
                windows.add(0)  # theirs may be larger now
            elif isinstance(event, h2.events.RequestReceived) and event.stream_id in given_up:
                self.keep_alive_requests += 1
            else:
                await self._handle_event(event)
        for stream_id in {0} & windows or windows:  # 0 is all of them
            await self._window_updated(stream_id)
        await self._flush()

    async def _handle_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                await self._take_request(event)
            case h2.events.DataReceived() if event.stream_id not in self.streams:
                await self._refuse_data(event)
            case h2.events.DataReceived():
                await self._take_data(event)
            case h2.events.PriorityUpdated():
                pass  # RFC 9113 §5.3.2 took it back; what it named was kept for ever
            case h2.events.PingReceived() | h2.events.SettingsAcknowledged():
                pass  # h2 has answered
            case h2.events.StreamReset():
                self._untold.pop(event.stream_id, None)
                await super()._handle_events([event])
                await self._rest_if_idle()  # upstream forgets; the connection stayed for ever
            case _:
                await super()._handle_events([event])

    async def _take_data(self, event: h2.events.DataReceived) -> None:
        """Hand on a piece of a body. There is room for it: the stream's window sees to that."""
        data = event.data or b""
        self._open_window(event.flow_controlled_length or 0)
        if padding := (event.flow_controlled_length or 0) - len(data):
            await self._tell(event.stream_id, padding)
        self._count(event.stream_id, len(data))
        await self.streams[event.stream_id].handle(Body(stream_id=event.stream_id, data=data))

    def _open_window(self, size: int) -> None:
        """Let the peer send so many bytes more on the connection, now or with the next ones."""
        manager = self.connection._inbound_flow_control_window_manager  # noqa: SLF001
        if increment := manager.process_bytes(size):
            frame = WindowUpdateFrame(0)
            frame.window_increment = increment
            self.connection._prepare_for_sending([frame])  # noqa: SLF001

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
        if name == b":path" and value[:1] != b"/" and value != b"*":
            return HTTPStatus.BAD_REQUEST
        if name in {b":authority", b"host"} and not is_host(value.decode("latin-1")):
            return HTTPStatus.BAD_REQUEST
    return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if size > max_bytes else None


class Http2Connection(TCPServer):
    """A connection: what it reads goes to the protocol, what that writes comes back.

    Args:
        app: answers the requests.
        config: Hypercorn's settings.
        context: knows whether the server drains.
        sock: the connection. It is closed in the end.
        client: its address and port.
        settings: those in force: what it may take.
        holdings: count what it holds, and may want it let go of.
        begun: what was read of it before, the preface first.

    """

    stream: SocketStream  # type: ignore[assignment] # TLS is the socket's matter
    protocol: Http2  # type: ignore[assignment] # and this is no HTTP/1.1

    def __init__(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        context: WorkerContext,
        sock: ConnectionSocket,
        *,
        client: tuple[str, int],
        settings: Settings,
        holdings: Holdings,
        begun: bytes,
    ) -> None:
        super().__init__(app, config, context, LifespanState(), SocketStream(sock))  # type: ignore[arg-type]
        self._client = client
        self._settings = settings
        self._holdings = holdings
        self._begun = begun
        self._reading = trio.CancelScope()
        self._phase = Phase.IDLE
        self._since = trio.current_time()  # of the phase
        self._writing_since = inf
        self._head_bytes = 0  # that are counted
        self._writes: set[trio.CancelScope] = set()
        self._sent_bytes = 0
        self._hurries = False
        self._hurrying = trio.CancelScope()

    @override
    async def run(self) -> bool:  # type: ignore[override]
        """Serve the connection's requests until either side closes it."""
        try:
            sock = self.stream.socket
            tasks = Tasks()
            async with tasks:
                self.protocol = Http2(
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    ConnectionState({}),
                    isinstance(sock, TlsSocket),
                    self._client,
                    sock.getsockname()[:2],
                    self.protocol_send,
                )
                tasks.on_taken = self.protocol.body_taken
                self.protocol.holdings = self._holdings
                self.stream.hold(HTTP2_BYTES)
                try:
                    await self.protocol.initiate()
                    await self._read_data()
                finally:
                    self._hurries = True  # it ends: no task may begin any more
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client is gone, before or in the middle of something
        finally:
            self.stream.close()
        return False

    def abort(self) -> None:
        """Reset the connection, and tell what it was serving."""
        self.stream.abort()
        self._reading.cancel()

    def end_if_idle(self) -> None:
        """Close the connection, unless a request is under way, and its answer is read."""
        if self._phase is not Phase.SERVING:
            self._reading.cancel()
        elif not self._hurries:
            self._hurries = True
            self.protocol.task_group.spawn(self._end_unless_read)
        for write in self._writes:
            write.deadline = min(write.deadline, trio.current_time() + http1.DRAIN_S)

    # For whoever needs its memory

    @property
    def held_bytes(self) -> int:
        """The bytes that it holds, without its requests."""
        return self.stream.held_bytes

    def unused_since(self, _now: float) -> float:
        """Return since when no request is under way, or its client has read nothing."""
        if self._phase is not Phase.SERVING:
            return self._since
        return self._writing_since

    def let_go(self) -> None:
        """End the connection, and wait for nobody."""
        if self._phase is Phase.SERVING:
            self.abort()
        else:
            self._hurries = True
            self._reading.cancel()

    async def _end_unless_read(self) -> None:
        """Reset the connection when of answers that wait nothing was taken for a while."""
        with self._hurrying:
            while self._phase is Phase.SERVING:
                sent = self._sent_bytes
                await trio.sleep(http1.DRAIN_S)
                if self._sent_bytes == sent and self.protocol.has_unread_answers:
                    self.abort()
                    return

    @override
    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol wrote; close the connection where it says so.

        It says everything once. So all of this is done, also for a handler that is cancelled.
        """
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._enter(Phase.IDLE if event.idle else Phase.SERVING)
        else:
            self.stream.close()
            await self.protocol.handle(Closed())
            self._reading.cancel()

    async def _send(self, data: bytes) -> None:
        # To the protocol it is written already: what is missing, or there in part, would spoil
        # the connection for all that follows. So a write, and the wait for its turn, outlives a
        # handler that is cancelled. It does not outlive its deadline.
        sent = False
        draining = self.context.terminated.is_set()
        timeout = http1.DRAIN_S if draining or self._hurries else http1.WRITE_TIMEOUT_S
        with (
            suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            trio.move_on_after(timeout, shield=True) as write,
        ):
            self._writes.add(write)
            async with self.send_lock:
                self._writing_since = trio.current_time()
                await self.stream.send_all(data)
                self._writing_since = inf
                self._sent_bytes += len(data)
                sent = True
        self._writes.discard(write)
        if not sent:
            self.abort()  # the reader may wait for the end of this very response

    @override
    async def _read_data(self) -> None:
        with self._reading:
            self._enter(Phase.IDLE)
            data = self._begun or await self.stream.receive_some()
            while True:
                await self.protocol.handle(RawData(data))
                if (size := self.protocol.head_bytes) != self._head_bytes:
                    self.stream.hold(size - self._head_bytes)
                    self._head_bytes = size
                if self._phase is Phase.IDLE and self.protocol.has_begun_a_head:
                    self._enter(Phase.HEAD)  # however it goes on, byte by byte or not at all
                if not data:
                    break
                try:
                    data = await self.stream.receive_some()
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    break
        if self._reading.cancelled_caught and self._phase is not Phase.SERVING:
            await self.protocol.give_up()
        await self.protocol.handle(Closed())
        self._hurrying.cancel()

    def _enter(self, phase: Phase) -> None:
        """Go on to another phase, which has its time from now on."""
        self._phase = phase
        self._since = trio.current_time()
        timeout = inf
        if phase is Phase.HEAD:
            timeout = self._settings.limits.head_timeout
        elif phase is Phase.IDLE:
            timeout = self._settings.server.keep_alive_timeout
            if self.context.terminated.is_set():
                timeout = 0.0
        self._reading.deadline = self._since + timeout
