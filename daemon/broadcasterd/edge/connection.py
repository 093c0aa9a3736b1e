"""A TCP connection as Hypercorn is given it: a stream that a handler can take away again."""

from __future__ import annotations

import socket
import struct

import trio


class Connection(trio.abc.HalfCloseableStream):
    """A TCP connection that a handler can take away from Hypercorn.

    Once detached it is empty: what Hypercorn still writes is swallowed, reading says closed.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
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
        taken = socket.socket(family, kind, fileno=self.socket.detach())
        taken.settimeout(0)
        return taken

    def abort(self) -> None:
        """Reset the connection, whoever waits for it."""
        if not self.detached and self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._stream.socket.close()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:  # noqa: D102
        if self.detached:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:  # noqa: D102
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:  # noqa: D102
        if self.detached:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:  # noqa: D102
        if not self.detached:
            await self._stream.send_eof()

    async def aclose(self) -> None:  # noqa: D102
        if not self.detached:
            await self._stream.aclose()


class ConnectionListener(trio.abc.Listener[Connection]):
    """Accepts connections as :class:`Connection`."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener

    async def accept(self) -> Connection:  # noqa: D102
        return Connection(await self._listener.accept())

    async def aclose(self) -> None:  # noqa: D102
        await self._listener.aclose()
