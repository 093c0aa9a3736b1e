"""The socket of a connection, plain or TLS: non-blocking, with a place that ends with it.

Both kinds are sockets to whoever has them: ``send`` takes what there is room for, ``recv`` returns
what has come, and ``BlockingIOError`` says that there is none now. So a stream of events over TLS
is written as a plain one is, and neither needs a task.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from typing_extensions import override

from broadcasterd.memory.holdings import HANDSHAKE_BYTES, SAVED_BYTES, TLS_BYTES, Holdings
from broadcasterd.server.connection_limits import Place

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_RECEIVED_BYTES = 64 * 1024

MAX_IN_A_ROW = 8
"""Reads that need not wait, until the others run all the same: less than a millisecond."""

MAX_RECORD_BYTES = 16 * 1024
"""Contents of one TLS record (RFC 8446 §5.1)."""

HANDSHAKE_TIMEOUT_S = 10.0

HANDSHAKES_AT_ONCE = 2
"""Steps of handshakes between two turns of everybody else: each takes some 300 µs."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for 0 s: close then sends a RST


class PlainSocket(socket.socket):
    """A connection without TLS.

    Attributes:
        place: is given back when the socket closes, if it has any.

    """

    __slots__ = ("place",)

    place: Place | None

    @override
    def close(self) -> None:
        """Close it, and give its place back."""
        super().close()
        if self.place is not None:
            self.place.give_back()


class TlsSocket(ssl.SSLSocket):
    """A connection with TLS. To be made by :func:`secured`."""

    place: Place | None = None
    _record = b""
    """What OpenSSL has encrypted and could not write. It has to be given the same again."""

    @override
    def send(self, data: ReadableBuffer, _flags: int = 0) -> int:
        """Encrypt and send as much as there is room for.

        A record is encrypted as a whole: where there is room for a part of it, it is as good as
        sent, but for one byte. That byte is not told to be sent, so that the caller comes again.

        Raises:
            BlockingIOError: there is no room.

        """
        view = memoryview(data)
        sent = 0
        if self._record:
            self._write(self._record)
            self._record = b""
            sent = 1
        while sent < len(view):
            record = bytes(view[sent : sent + MAX_RECORD_BYTES])
            try:
                self._write(record)
            except BlockingIOError:
                self._record = record
                return sent + len(record) - 1
            sent += len(record)
        return sent

    @override
    def recv(self, buflen: int = MAX_RECEIVED_BYTES, flags: int = 0) -> bytes:
        """Return what has come, nothing at the end.

        Raises:
            BlockingIOError: nothing has come.

        """
        try:
            return super().recv(buflen, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    @override
    def shutdown(self, how: int) -> None:
        """Say goodbye, and send no more."""
        self._say_goodbye()
        super().shutdown(how)

    @override
    def close(self) -> None:
        """Say goodbye, close it, and give its place back."""
        if self.fileno() >= 0:
            self._say_goodbye()
        super().close()
        if self.place is not None:
            self.place.give_back()

    def _say_goodbye(self) -> None:
        with suppress(OSError, ValueError):
            self.unwrap()  # it is not waited for the client's

    def _write(self, record: bytes) -> None:
        try:
            super().send(record)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None


def reset(sock: socket.socket) -> None:
    """Close a connection with a RST: what was sent is not to be waited for. Idempotent."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


ConnectionSocket = PlainSocket | TlsSocket


class Handshake:
    """One that is under way: it is of no use to anybody."""

    def __init__(self, scope: trio.CancelScope, place: Place | None) -> None:
        self.scope = scope
        self._place = place
        self._began_at = trio.current_time()

    @property
    def held_bytes(self) -> int:
        """The bytes that it holds."""
        return 0 if self._place is None else self._place.bytes

    def unused_since(self, _now: float) -> float:
        """Return when it began."""
        return self._began_at

    def let_go(self) -> None:
        """Give it up."""
        self.scope.cancel()


class Handshakes:
    """TLS handshakes: not too many at a time, so that they cost nobody else anything.

    Args:
        holdings: knows of those that are under way.

    """

    def __init__(self, holdings: Holdings | None = None) -> None:
        self._holdings = Holdings() if holdings is None else holdings
        self._free, self._turns = trio.open_memory_channel[None](HANDSHAKES_AT_ONCE)
        for _ in range(HANDSHAKES_AT_ONCE):
            self._free.send_nowait(None)
        self._under_way: set[Handshake] = set()
        self._timeout = HANDSHAKE_TIMEOUT_S

    def give_up_after(self, seconds: float) -> None:
        """Wait no longer for those that are under way, and those that begin yet."""
        self._timeout = seconds
        for each in self._under_way:
            each.scope.deadline = min(each.scope.deadline, trio.current_time() + seconds)

    async def secured(self, plain: PlainSocket, context: ssl.SSLContext) -> ConnectionSocket:
        """Do the handshake on a connection; ``plain`` lets go of it. Close it where that fails.

        Where the client speaks HTTP instead, ``plain`` is returned, and nothing is read: it can be
        told, and that is no handshake.

        Raises:
            OSError: the client speaks no TLS that would do.
            trio.TooSlowError: it took longer than ``HANDSHAKE_TIMEOUT_S``, or was given up.

        """
        place = plain.place
        sock: ConnectionSocket = plain
        with trio.move_on_after(self._timeout) as scope:
            handshake = Handshake(scope, place)
            self._under_way.add(handshake)
            self._holdings.add(handshake)
            try:
                if place is not None:
                    place.take(-SAVED_BYTES)
                await trio.lowlevel.wait_readable(plain)
                if place is not None:
                    place.take(SAVED_BYTES)
                if _speaks_http(plain):
                    return plain
                sock = tls = _with_tls(plain, context)
                if place is not None:
                    place.take(HANDSHAKE_BYTES)
                while not await self._step(tls):
                    pass
            except BaseException:
                sock.close()
                raise
            finally:
                self._under_way.discard(handshake)
                self._holdings.discard(handshake)
            if place is not None:
                place.take(TLS_BYTES - HANDSHAKE_BYTES)
        if scope.cancelled_caught:
            raise trio.TooSlowError
        return sock

    async def _step(self, tls: TlsSocket) -> bool:
        """Do the next part of a handshake; return whether it was the last."""
        await trio.lowlevel.wait_readable(tls)
        await self._turns.receive()
        try:
            tls.do_handshake()
            await trio.lowlevel.checkpoint()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(tls)
            return False
        finally:
            self._free.send_nowait(None)
        return True


def _speaks_http(plain: PlainSocket) -> bool:
    """Tell by the first byte that has come: a method's letter is no TLS record's type."""
    try:
        return plain.recv(1, socket.MSG_PEEK).isalpha()
    except OSError:  # whoever reads next will see
        return False


def _with_tls(plain: PlainSocket, context: ssl.SSLContext) -> TlsSocket:
    tls = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
    assert isinstance(tls, TlsSocket)  # noqa: S101 (it was asked for)
    tls.place = plain.place
    return tls


class SocketStream(trio.abc.HalfCloseableStream):
    """A connection's socket as a stream: it is tried first, and waited for where it has to be."""

    def __init__(self, sock: ConnectionSocket) -> None:
        self.socket = sock
        self._in_a_row = 0  # reads that did not have to wait

    def receive_nowait(self) -> bytes | None:
        """Return what has come, nothing at the end; ``None`` where nothing is here yet."""
        return self._receive(MAX_RECEIVED_BYTES)

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, nothing at the end. Others run meanwhile, now and then at least."""
        await trio.lowlevel.checkpoint_if_cancelled()
        size = max_bytes or MAX_RECEIVED_BYTES
        data = self._receive(size)
        if data is not None:
            self._in_a_row += 1
            if self._in_a_row == MAX_IN_A_ROW:
                self._in_a_row = 0
                await trio.lowlevel.cancel_shielded_checkpoint()  # it is here, and not to be lost
            return data
        self._in_a_row = 0
        while data is None:
            await trio.lowlevel.wait_readable(self.socket)
            data = self._receive(size)
        return data

    async def receive_next(self) -> bytes:
        """Return what comes next, where hardly anything is here yet: it is waited for at once."""
        if isinstance(self.socket, TlsSocket):  # a record may have brought more than was taken
            return await self.receive_some()
        self._in_a_row = 0
        data = None
        while data is None:
            await trio.lowlevel.wait_readable(self.socket)
            data = self._receive(MAX_RECEIVED_BYTES)
        return data

    @override
    async def send_all(self, data: ReadableBuffer) -> None:
        """Send everything; it is waited for only where there is no room."""
        view = memoryview(data)
        while view := view[self.send_some(view) :]:
            await trio.lowlevel.wait_writable(self.socket)

    def send_some(self, data: ReadableBuffer) -> int:
        """Send what there is room for; return how many bytes that was."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._why(error) from error

    @override
    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self.socket)

    @override
    async def send_eof(self) -> None:
        """Say that no more will come."""
        with suppress(OSError):  # the client is gone
            self.socket.shutdown(socket.SHUT_WR)
        await trio.lowlevel.checkpoint()

    def was_delivered(self) -> bool:
        """Whether the client's machine has all that was sent, as far as is known (tcp(7))."""
        unacknowledged = fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4))
        return not any(unacknowledged)

    @override
    async def aclose(self) -> None:
        """Close the connection, whoever waits for it."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close the connection, whoever waits for it. Idempotent."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
        self.socket.close()

    def abort(self) -> None:
        """Reset the connection, whoever waits for it. Idempotent."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
        reset(self.socket)

    @property
    def held_bytes(self) -> int:
        """The bytes that the connection holds."""
        return 0 if self.socket.place is None else self.socket.place.bytes

    def hold(self, size: int) -> None:
        """Count so many bytes more, or fewer, among those that the connection holds."""
        if (place := self.socket.place) is not None:
            place.take(size)

    def _receive(self, max_bytes: int) -> bytes | None:
        try:
            return self.socket.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._why(error) from error

    def _why(self, error: OSError) -> Exception:
        if self.socket.fileno() < 0:
            return trio.ClosedResourceError("it was closed")
        return trio.BrokenResourceError(str(error))
