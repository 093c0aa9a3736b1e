"""What keeps what a hub leaves to the next one, in memory, where a service has systemd."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio


class Shelf:
    """Keeps segments and sockets, as systemd does: by descriptors of its own."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}
        self.sockets: list[socket.socket] = []
        self.breaks_down = False

    async def keep_segment(self, index: int, segment: bytearray) -> None:
        await trio.lowlevel.checkpoint()
        if self.breaks_down:
            raise TimeoutError
        self.kept[index] = bytes(segment)

    async def keep_sockets(self, sockets: Sequence[socket.socket]) -> None:
        self.sockets += [sock.dup() for sock in sockets]

    @property
    def segments(self) -> int:
        return len(self.kept)

    async def take_segment(self, index: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.kept.get(index, b"")

    async def take_sockets(self) -> list[socket.socket]:
        for sock in self.sockets:
            sock.settimeout(0)
        return self.sockets
