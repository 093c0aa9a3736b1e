"""A TCP connection as Hypercorn is given it: a stream that a handler can take away again."""

from __future__ import annotations

import socket
import struct

import trio
from typing_extensions import override

from broadcasterd.server.connection_limits import ConnectionLimits, Place

ACCEPT_PAUSE_S = 0.1
"""After a failure to accept: what is lacking (descriptors, memory) is not back at once."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for 0 s: close then sends a RST


class TakenSocket(socket.socket):
    """A connection's socket without Hypercorn. Its place is free when it is closed."""

    __slots__ = ("place",)

    place: Place

    @override
    def close(self) -> None:
        """Close it, and give its place back."""
        super().close()
        self.place.give_back()


class Connection(trio.abc.HalfCloseableStream):
    """A TCP connection that a handler can take away from Hypercorn.

    Once detached it is empty: what Hypercorn still writes is swallowed, reading says closed.
    """

    def __init__(self, stream: trio.SocketStream, place: Place) -> None:
        self._stream = stream
        self._place = place
        self.detached = False
        self.socket = stream.socket  # Hypercorn reads its addresses

    def detach(self) -> socket.socket:
        """Return the socket, non-blocking; this stream lets go of it.

        All that was written before has been handed to the kernel: nothing is buffered here.

        Raises:
            trio.ClosedResourceError: the connection was closed before.

        """
        if self.socket.fileno() < 0:
            raise trio.ClosedResourceError
        family, kind = self.socket.family, self.socket.type
        # Hypercorn's reader is parked on it: it must leave before somebody else waits there.
        trio.lowlevel.notify_closing(self.socket)
        self.detached = True
        taken = TakenSocket(family, kind, fileno=self.socket.detach())
        taken.place = self._place
        taken.settimeout(0)
        return taken

    def abort(self) -> None:
        """Reset the connection, whoever waits for it."""
        if not self.detached and self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._stream.socket.close()

    def leave(self) -> None:
        """Give the place back, unless it went with the socket. Idempotent."""
        if not self.detached:
            self._place.give_back()

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.detached:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(data)

    @override
    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.detached:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        return await self._stream.receive_some(max_bytes)

    @override
    async def send_eof(self) -> None:
        if not self.detached:
            await self._stream.send_eof()

    @override
    async def aclose(self) -> None:
        if not self.detached:
            await self._stream.aclose()


class ConnectionListener(trio.abc.Listener[Connection]):
    """Accepts connections as :class:`Connection`, as long as there is a place for them."""

    def __init__(self, listener: trio.SocketListener, places: ConnectionLimits) -> None:
        self._listener = listener
        self._places = places

    @override
    async def accept(self) -> Connection:
        """Wait for a connection that finds a place. Nothing but :meth:`aclose` ends this."""
        while True:
            try:
                stream = await self._listener.accept()
            except OSError as error:
                # accept(2) also tells of a network's or a client's trouble: no reason to stop.
                self._places.accept_failed(error)
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            if (place := self._place_for(stream.socket)) is not None:
                return Connection(stream, place)
            stream.socket.close()

    @override
    async def aclose(self) -> None:
        await self._listener.aclose()

    def _place_for(self, sock: trio.socket.SocketType) -> Place | None:
        try:
            place = self._places.take(sock.getpeername()[0])
            if place is None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            return None  # it has gone
        return place
