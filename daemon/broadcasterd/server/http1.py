"""One HTTP/1.1 connection: a task that reads a request, has it served, and reads the next.

A request that is there as a whole is carried out, whatever its client does meanwhile. Whether the
client is still there is looked at only where an answer is waited for, or has no end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from http import HTTPStatus
from math import inf
from typing import Self

import structlog
import trio
from typing_extensions import override

from broadcasterd.api.bodies import Arriving, ClientDisconnected
from broadcasterd.api.cors import shared_with
from broadcasterd.api.problems import PROBLEM_TYPE, problem_document
from broadcasterd.broadcast.poller import Poller
from broadcasterd.config import Settings
from broadcasterd.errors import Problem
from broadcasterd.memory.holdings import TLS_BYTES
from broadcasterd.server.framing import KnownFields, refusal
from broadcasterd.server.headers import RawHeaders
from broadcasterd.server.requests import RequestHead, RequestReader
from broadcasterd.server.responses import (
    CLOSE,
    CONTINUE,
    LAST_CHUNK,
    WITHOUT_BODY,
    encode_head,
    has_no_body,
)
from broadcasterd.server.sockets import ConnectionSocket, PlainSocket, SocketStream, TlsSocket

log = structlog.stdlib.get_logger(__name__)

WRITE_TIMEOUT_S = 20.0
"""How long a response may wait until its reader takes more."""

DRAIN_S = 1.0
"""The same where the daemon stops: nobody who reads nothing holds it up for longer."""

LINGER_S = 2.0
"""How long a client may go on to send what nobody reads: closing at once would reset the
connection, and with it the answer that says why."""

GLANCE_S = 0.05
"""Where the daemon stops: between two looks whether a client's machine has its last answer. No
longer is lingered then, whatever the client goes on to send: a restart would wait for it."""

MAX_AHEAD_BYTES = 64 * 1024
"""Bytes that a client may send ahead while it is watched for its leaving."""


class Phase(Enum):
    """What a connection is doing; it may do most of that only for so long."""

    IDLE = "no request is under way"
    HEAD = "a part of the next request's head is there"
    SERVING = "a request is under way, and has limits of its own"
    WRITING = "a response waits for its reader"
    LINGERING = "the last answer was given, and the client may still send"


Serve = Callable[["Exchange"], Awaitable[None]]
"""Sends the response to a request, and returns when that is done."""


class Http1:
    """One connection.

    Args:
        sock: the connection. It is closed in the end, unless it was detached.
        settings: those in force: what it may take.
        poller: tells whether a client leaves.
        known: the header fields that other connections had.
        serve: called with each request; returns when its response was sent.

    Attributes:
        draining: whether the request that is under way is to be the last.

    """

    def __init__(
        self,
        sock: ConnectionSocket,
        settings: Settings,
        poller: Poller,
        known: KnownFields,
        serve: Serve,
    ) -> None:
        self.stream = SocketStream(sock)
        self.reader = RequestReader(settings.limits.max_head_bytes, known)
        self.draining = False
        self.detached = False
        self._keep: Callable[[ConnectionSocket], None] | None = None
        self._is_over = False  # no request is waited for any more
        self._settings = settings
        self._poller = poller
        self._serve = serve
        self._scope: trio.CancelScope  # while it runs
        self._is_aborted = False
        self._phase = Phase.IDLE
        self._since = 0.0  # of the phase; while it writes, when its reader took some
        self._buffered = 0  # bytes in buffers, as far as they are counted: where it waits
        self._requests = 0
        self._asked: RequestHead | None = None  # what is being served
        self._begun: tuple[Exchange, Serve] | None = None  # the first, from `serve_at_once`
        self._speaks_http2 = False

    def serve_at_once(self, begin: Callable[[Exchange], Serve | None]) -> bool:
        """Serve a first GET that is here already, without a task: a stream needs none.

        Args:
            begin: is called with it. It makes a stream of the connection, or returns what sends
                the response from :meth:`run`.

        Returns:
            Whether it was made a stream. If not, it is to be run.

        """
        head = None
        try:
            if data := self.stream.receive_nowait():
                self.reader.feed(data)
                if data.startswith(b"GET "):
                    head = self.reader.next_head()
        except (trio.BrokenResourceError, Problem):
            pass  # it is met again by `run`
        exchange = self._exchange_for(head)
        if exchange is not None and (serve := begin(exchange)) is not None:
            self._begun = exchange, serve
        return self.detached

    async def run(self) -> bool:
        """Serve the connection's requests until either side ends it.

        Returns:
            Whether the client speaks HTTP/2 instead, whose preface was read.

        """
        self._since = trio.current_time()
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                await self._serve_all()
            if self._scope.cancelled_caught and self._phase is Phase.HEAD and not self._is_aborted:
                with trio.move_on_after(DRAIN_S if self.draining else LINGER_S):
                    await self._refuse(refusal(HTTPStatus.REQUEST_TIMEOUT))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client is gone
        finally:
            if self.detached or self._speaks_http2:
                pass
            elif self._is_aborted or self._phase is Phase.WRITING:
                self.stream.abort()  # what was written in part is not to look like a whole
            else:
                self.stream.close()
        return self._speaks_http2

    def detach(self) -> ConnectionSocket:
        """Return the socket: the connection is somebody else's from now on."""
        self.detached = True
        sock = self.stream.socket
        if sock.place is not None:  # what a stream takes is counted by the hub
            sock.place.hold(TLS_BYTES if isinstance(sock, TlsSocket) else 0)
        return sock

    def abort(self) -> None:
        """Reset the connection, and end what it was serving."""
        self._is_aborted = True
        self._scope.cancel()

    def answer_the_last(self, keep: Callable[[ConnectionSocket], None] | None = None) -> None:
        """Make the request that is under way, or else the next one, the last.

        With ``keep``, a connection on which none is under way is given to that, with all that has
        come on it and was not read: a request is answered there. TLS is not: it cannot be moved.
        """
        self.draining = True
        if isinstance(self.stream.socket, PlainSocket):
            self._keep = keep
            self._wake()

    def end_if_idle(self) -> None:
        """Close the connection when no request is under way, or when this one is over.

        It need not wait for a client who reads nothing.
        """
        self.draining = self._is_over = True
        if self._phase is Phase.IDLE:
            self._wake()
        elif self._phase is Phase.HEAD:
            self._scope.cancel()
        else:
            self._hurry()

    def end_if_unused(self, now: float) -> None:
        """Close the connection if for ``server.keep_alive_timeout`` nobody has asked for anything.

        That is looked at now and then, from outside: a deadline that every request moves would
        cost it as much as its head does.
        """
        if (
            self._phase is Phase.IDLE
            and now - self._since >= self._settings.server.keep_alive_timeout
        ):
            self.end_if_idle()

    def _wake(self) -> None:
        """Have whoever waits for a request look again: one that has just come is not lost."""
        if self._phase is Phase.IDLE:
            trio.lowlevel.notify_closing(self.stream.socket)

    def _waits_no_more(self) -> bool:
        """Whether no request is waited for; the connection goes to whom it is kept for."""
        if self._keep is not None:
            self._keep(self.detach())
        return self._is_over or self.detached

    # For whoever needs its memory

    @property
    def held_bytes(self) -> int:
        """The bytes that it holds."""
        return self.stream.held_bytes

    def unused_since(self, _now: float) -> float:
        """Return since when nothing is under way, or nothing of an answer was taken."""
        return inf if self._phase is Phase.SERVING else self._since

    def let_go(self) -> None:
        """Close the connection; reset it where something is half there."""
        if self._phase is Phase.IDLE:
            self.end_if_idle()
        else:
            self.abort()

    def _buffers(self, size: int) -> None:
        """Count what is in buffers; called where the client is waited for."""
        self.stream.hold(size - self._buffered)
        self._buffered = size

    # Reading

    async def _serve_all(self) -> None:
        exchange, serve = self._begun or (None, self._serve)
        self._begun = None
        try:
            while exchange or (exchange := self._exchange_for(await self._next_head())):
                await serve(exchange)
                self._asked = None
                if self.detached:
                    break
                if exchange.is_last:
                    await self._linger()
                    break
                exchange, serve = None, self._serve
                if self.reader.rest:
                    await trio.lowlevel.checkpoint()  # a hundred may be there already
        except ClientDisconnected:
            pass
        except Problem as problem:
            await self._refuse(problem)

    def _exchange_for(self, head: RequestHead | None) -> Exchange | None:
        """Return what is to be served; ``None`` where nothing is, or not on HTTP/1.1."""
        if head is None:
            return None
        if head.http_version == "2.0":
            if not self._settings.server.h2c:
                raise refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            self._speaks_http2 = True
            return None
        self._asked = head
        self._requests += 1
        if self._phase is Phase.HEAD:
            self._scope.deadline = inf
        self._phase = Phase.SERVING
        most = self._settings.limits.max_requests_per_connection
        return Exchange(self, head, is_last=self._requests >= most)

    async def _next_head(self) -> RequestHead | None:
        """Wait for the next request; ``None`` when the client says that there is none."""
        while (head := self.reader.next_head()) is None:
            if self._phase is not Phase.HEAD and not self._begins_to_wait():
                return None
            if self._phase is Phase.HEAD:
                self._buffers(len(self.reader.rest))
            try:
                if self._phase is Phase.IDLE and self._requests:  # it was just answered
                    data = await self.stream.receive_next()
                else:
                    data = await self.stream.receive_some()
            except trio.ClosedResourceError:
                if self.stream.socket.fileno() < 0:
                    raise
                continue  # it was woken, to look again
            if data:
                self.reader.feed(data)
            elif self._phase is Phase.HEAD:
                raise refusal(HTTPStatus.BAD_REQUEST)
            else:
                return None
        if self._buffered:
            self._buffers(0)
        return head

    def _begins_to_wait(self) -> bool:
        """Whether a request is waited for, or the rest of a head that has begun."""
        if self.reader.rest:  # however it goes on, byte by byte or not at all
            self._enter(Phase.HEAD, self._settings.limits.head_timeout)
        elif self._waits_no_more():
            return False
        elif self._phase is not Phase.IDLE:
            self._phase = Phase.IDLE
            self._since = trio.current_time()
        return True

    def _enter(self, phase: Phase, seconds: float) -> None:
        """Go on to another phase, which has so much time from now on."""
        self._phase = phase
        self._since = trio.current_time()
        self._scope.deadline = self._since + seconds
        if self.draining:
            self._hurry()

    def _hurry(self) -> None:
        """Where the daemon stops, wait no longer for a client than ``DRAIN_S``."""
        if self._phase is not Phase.SERVING:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + DRAIN_S)

    # Writing

    async def send(self, data: bytes) -> None:
        """Send a part of a response; its reader has some time to make room for it."""
        sent = self.stream.send_some(data)
        if sent < len(data):
            self._enter(Phase.WRITING, WRITE_TIMEOUT_S)
            self._buffers(len(data) + len(self.reader.rest))
            ends_at = trio.current_time() + WRITE_TIMEOUT_S
            view = memoryview(data)[sent:]
            while view:
                await self.stream.wait_send_all_might_not_block()
                if taken := self.stream.send_some(view):
                    view = view[taken:]
                    self._since = trio.current_time()
                if self.draining:  # it reads: it may go on
                    self._scope.deadline = ends_at
                    self._hurry()
            self._enter(Phase.SERVING, inf)
            self._buffers(0)

    async def _refuse(self, problem: Problem) -> None:
        """Answer what is no request; nothing can follow it."""
        shared: Mapping[str, str] = {}
        if (server := self._settings.server).cors_origins:  # a page is to read why, too
            asked = self._asked
            fields = self.reader.fields_so_far() if asked is None else asked.headers
            shared = shared_with("" if asked is None else asked.method, fields, server)
        await self.send(_encode_problem(problem, shared))
        await self._linger()

    async def _linger(self) -> None:
        """Let the client read the last answer before the connection is closed."""
        if not self.reader.rest and self.reader.body_is_read:
            return
        self._enter(Phase.LINGERING, LINGER_S)
        await self.stream.send_eof()
        while True:
            with trio.move_on_after(GLANCE_S):
                while await self.stream.receive_some():
                    pass
                return
            if self.draining and self.stream.was_delivered():
                return

    # The client

    def watch(self, on_gone: Callable[[], None]) -> Watch:
        """Look from now on whether the client leaves, or says that it will send no more."""
        return Watch(self.stream.socket, self.reader, self._poller, on_gone, self._buffers)

    @contextmanager
    def until_gone(self) -> Iterator[None]:
        """Cancel what is inside when the client leaves, or says that it will send no more."""
        with trio.CancelScope() as scope:
            watch = self.watch(scope.cancel)
            try:
                yield
            finally:
                watch.end()


class Exchange(Arriving):
    """A request and its response.

    Attributes:
        is_last: whether nothing follows on this connection.
        has_begun: whether some of the response was sent.
        was_cut_short: whether the client left before the end of the body.

    """

    def __init__(self, connection: Http1, head: RequestHead, *, is_last: bool) -> None:
        self.connection = connection
        self.head = head
        self.is_last = is_last or not head.keeps_alive
        self.has_begun = False
        self.was_cut_short = False
        self._has_body = True
        self._is_chunked = False
        self._continues = not head.expects_continue

    # The body

    @override
    def at_hand(self) -> bytes | None:
        """Return all of the body, if it is here; ``None``, and nothing is taken, if it is not."""
        return self.connection.reader.whole_body()

    @override
    def __aiter__(self) -> Self:
        return self

    @override
    async def __anext__(self) -> bytes:
        """Wait for the next piece of the body.

        Raises:
            ClientDisconnected: the rest will never come.
            Problem: it is malformed.

        """
        reader = self.connection.reader
        while (piece := reader.next_piece()) is None:
            try:
                if not self._continues and not reader.rest:
                    await self.connection.send(CONTINUE)
                data = await self.connection.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._continues = True
            if not data:
                self.was_cut_short = True
                raise ClientDisconnected
            reader.feed(data)
        if not piece:
            raise StopAsyncIteration
        return piece

    # The response

    async def answer(self, status: int, fields: RawHeaders, body: bytes) -> None:
        """Send a whole response."""
        is_said = status in WITHOUT_BODY or _has_length(fields)
        head = self._encode_head(status, fields, None if is_said else len(body))
        await self.connection.send(head if has_no_body(self.head.method, status) else head + body)

    async def begin(self, status: int, fields: RawHeaders, body: bytes) -> None:
        """Send the beginning of a response."""
        self._has_body = not has_no_body(self.head.method, status)
        if self._has_body and not _has_length(fields):
            if self.head.http_version == "1.0":
                self.is_last = True
            else:
                self._is_chunked = True
                fields = [*fields, (b"transfer-encoding", b"chunked")]
        await self.connection.send(self._encode_head(status, fields) + self._framed(body))

    async def go_on(self, body: bytes, *, more: bool) -> None:
        """Send more of a response that was begun."""
        end = LAST_CHUNK if self._is_chunked and not more else b""
        await self.connection.send(self._framed(body) + end)

    def _encode_head(self, status: int, fields: RawHeaders, length: int | None = None) -> bytes:
        self.has_begun = True
        self.is_last = (
            self.is_last or CLOSE in fields or self.connection.draining or not self._is_read()
        )
        return encode_head(status, fields, closes=self.is_last, length=length)

    def _is_read(self) -> bool:
        """Whether all of the request has come; what has come of it by now is passed over."""
        reader = self.connection.reader
        if reader.body_is_read:
            return True
        try:
            reader.next_piece()  # one at the most: what is in thousands of chunks takes long
        except Problem:
            return False
        return reader.body_is_read

    def _framed(self, body: bytes) -> bytes:
        if not body or not self._has_body:
            return b""
        return b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked else body


def _has_length(fields: RawHeaders) -> bool:
    for name, _ in fields:  # noqa: SIM110 (there are few, and this is done for each answer)
        if name == b"content-length":
            return True
    return False


class Watch:
    """Looks whether a client leaves, while nobody reads what it sends."""

    def __init__(
        self,
        sock: ConnectionSocket,
        reader: RequestReader,
        poller: Poller,
        on_gone: Callable[[], None],
        buffers: Callable[[int], None],
    ) -> None:
        self._buffers = buffers
        self._socket = sock
        self._reader = reader
        self._poller = poller
        self._on_gone = on_gone
        poller.add(sock, self)

    def end(self) -> None:
        """Look no longer."""
        self._poller.remove(self._socket)

    def on_readable(self) -> None:
        """Keep what it sends ahead, up to a limit; then there is no telling any more."""
        try:
            data = self._socket.recv(MAX_AHEAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._reader.feed(data)
        self._buffers(len(self._reader.rest))
        if not data or len(self._reader.rest) > MAX_AHEAD_BYTES:
            self.end()
        if not data:
            self._on_gone()

    def on_writable(self) -> None:
        """Nothing is written: this is not called."""

    def on_failure(self, error: Exception) -> None:
        """Let go of who waits."""
        log.error("a connection failed", exc_info=error)
        self._on_gone()


def _encode_problem(problem: Problem, shared: Mapping[str, str]) -> bytes:
    body = problem_document(problem)
    fields = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in shared.items()),
    ]
    return encode_head(problem.status, fields, closes=True) + body
