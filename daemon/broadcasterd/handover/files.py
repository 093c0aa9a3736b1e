"""A handover in files: where systemd keeps no descriptors, the logs survive a restart all the same.

The directory is the service's own, and in memory (``RuntimeDirectory=``, tmpfs). A segment is
removed as it is read: a handover is taken up once, or never.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import trio

_SUFFIX = ".handover"


class HandoverFiles:
    """Keeps segments in a directory, and no sockets.

    Args:
        directory: exists, and is nobody else's.

    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return sum(1 for _ in self._directory.glob(f"*{_SUFFIX}"))

    async def keep_segment(self, index: int, segment: bytearray) -> None:
        """Keep a segment.

        Raises:
            OSError: it cannot be written.

        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(self._path(index), flags, 0o600), "wb") as file:  # noqa: ASYNC230, PTH123 (memory)
            file.write(segment)
        await trio.lowlevel.checkpoint()

    async def keep_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Keep none: files cannot hold sockets."""

    async def settle(self) -> None:
        """Do nothing: all segments are written already."""

    async def take_segment(self, index: int) -> bytes:
        """Return a segment, and remove it; empty if it is missing.

        Raises:
            OSError: it cannot be read.

        """
        await trio.lowlevel.checkpoint()
        try:
            segment = self._path(index).read_bytes()
        except FileNotFoundError:
            return b""
        self._path(index).unlink()
        return segment

    async def take_sockets(self) -> list[socket.socket]:
        """Return none; remove the rest of a handover that could not be read."""
        await trio.lowlevel.checkpoint()
        for path in self._directory.glob(f"*{_SUFFIX}"):
            path.unlink()
        return []

    def _path(self, index: int) -> Path:
        return self._directory / f"{index}{_SUFFIX}"
