"""systemd's descriptor store: what a process leaves there, the next start of the service is given.

It keeps any open descriptor (sd_notify(3), FDSTORE=1): sockets, and each segment of a handover as a
sealed memfd_create(2). Of a socket whose client hangs up in between, systemd lets go by itself.
Nothing is told back; a *barrier* (sd_notify_barrier(3)) says that all sent before it was taken.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterable, Sequence

import trio

from broadcasterd.host.systemd import HandedOver, Notifier

SOCKETS = "s"
"""The name of all stored sockets. It is short: 15,000 of it are one environment variable."""

FDS_PER_MESSAGE = 250
"""SCM_MAX_FD is 253: unix(7)."""

TIMEOUT_S = 10.0
"""How long the manager may take for one message."""

RETRY_S = 0.005
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_SEGMENT = re.compile(r"h([0-9]{1,6})")


class DescriptorStore:
    """Keeps a handover with systemd.

    Args:
        notifier: sends to the manager.
        room: how many descriptors it keeps (``FileDescriptorStoreMax=``).

    """

    def __init__(self, notifier: Notifier, *, room: int) -> None:
        self._notifier = notifier
        self.room = room

    async def keep_segment(self, index: int, segment: bytearray) -> None:
        """Keep a segment, which nobody can change from now on.

        Raises:
            OSError: it cannot be kept.

        """
        fd = os.memfd_create(f"broadcasterd-{index}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(segment)
            while view:
                view = view[os.write(fd, view) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            await self._send("FDSTORE=1", f"FDNAME=h{index}", fds=[fd])
        finally:
            os.close(fd)

    async def keep_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Keep sockets.

        Raises:
            OSError: they cannot be kept.

        """
        for start in range(0, len(sockets), FDS_PER_MESSAGE):
            some = sockets[start : start + FDS_PER_MESSAGE]
            await self._send("FDSTORE=1", f"FDNAME={SOCKETS}", fds=[s.fileno() for s in some])

    async def settle(self) -> None:
        """Wait until systemd has taken all of it.

        Raises:
            OSError: it does not.

        """
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            try:
                await self._send("BARRIER=1", fds=[theirs])
            finally:
                os.close(theirs)
            with trio.move_on_after(TIMEOUT_S) as wait:
                await trio.lowlevel.wait_readable(ours)
            if wait.cancelled_caught:
                raise TimeoutError("systemd did not take what it was to keep")
        finally:
            os.close(ours)

    async def forget(self, name: str) -> None:
        """Have systemd close what it keeps under a name.

        Raises:
            OSError: it cannot be told.

        """
        await self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    async def _send(self, *assignments: str, fds: Sequence[int] = ()) -> None:
        with trio.move_on_after(TIMEOUT_S) as wait:
            while not self._notifier.send(*assignments, fds=fds):  # noqa: ASYNC110 (no event for it)
                await trio.sleep(RETRY_S)
        if wait.cancelled_caught:
            raise TimeoutError("systemd is too busy to keep anything")
        await trio.lowlevel.checkpoint()


class Stored:
    """What was kept for this process. It is taken piece by piece, each once.

    Args:
        handed: the descriptors that this process was started with.
        store: whence they are; it is told to let go of what was taken.

    """

    def __init__(self, handed: Iterable[HandedOver], store: DescriptorStore) -> None:
        self._store = store
        self._segments: dict[int, int] = {}
        self._sockets: list[int] = []
        self.others: list[HandedOver] = []
        for each in handed:
            if each.name == SOCKETS:
                self._sockets.append(each.fd)
            elif found := _SEGMENT.fullmatch(each.name):
                self._segments[int(found[1])] = each.fd
            else:
                self.others.append(each)

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return len(self._segments)

    async def take_segment(self, index: int) -> bytes:
        """Return a segment; nothing, where it is missing.

        Raises:
            OSError: systemd cannot be told.

        """
        fd = self._segments.pop(index, None)
        if fd is None:
            return b""
        try:
            segment = os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
        await self._store.forget(f"h{index}")
        return segment

    async def take_sockets(self) -> list[socket.socket]:
        """Return all sockets, non-blocking. From then on they are this process's alone.

        Raises:
            OSError: systemd cannot be told.

        """
        sockets = []
        for fd in self._sockets:
            sock = socket.socket(fileno=fd)
            sock.settimeout(0)
            sockets.append(sock)
        self._sockets = []
        if sockets:
            await self._store.forget(SOCKETS)
            await self._store.settle()
        return sockets
