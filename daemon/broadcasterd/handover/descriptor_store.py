"""systemd's descriptor store: it gives one process's descriptors to the service's next process.

The store keeps any open descriptor (sd_notify(3), FDSTORE=1): each segment of a handover as a
sealed memfd_create(2), and all sockets together as one, the *parcel*. The parcel is one end of a
pair of Unix sockets, kept with the sockets on their way to it (unix(7), SCM_RIGHTS). Thousands of
sockets one by one would take systemd half a minute: it compares each with all that it has.

systemd does not answer; a *barrier* (sd_notify_barrier(3)) says that it took all sent before.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence

import trio

from broadcasterd.host.systemd import HandedOver, Notifier

PARCEL = "streams"
"""The name of the descriptor at which the sockets wait."""

CONFIGURATION = "configuration"
"""The name of the memory that has the configuration in force."""

FDS_PER_MESSAGE = 250
"""SCM_MAX_FD is 253: unix(7)."""

TIMEOUT_S = 10.0
"""How long the manager may take for one message."""

RETRY_S = 0.005
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_SEGMENT = re.compile(r"h([0-9]{1,6})")


def sealed_memory(name: str, data: bytes | bytearray) -> int:
    """Return a descriptor of memory with this in it, which nobody can change from now on.

    Raises:
        OSError: there is none to be had.

    """
    fd = os.memfd_create(f"broadcasterd-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


class DescriptorStore:
    """Keeps a handover with systemd.

    Args:
        notifier: sends to the manager.
        room: how many descriptors it keeps (``FileDescriptorStoreMax=``).

    """

    def __init__(self, notifier: Notifier, *, room: int) -> None:
        self._notifier = notifier
        self._parcel: socket.socket | None = None
        self.room = room

    async def keep_segment(self, index: int, segment: bytearray) -> None:
        """Keep a segment, which nobody can change from now on.

        Raises:
            OSError: it cannot be kept.

        """
        await self._keep(f"h{index}", segment)

    async def keep_configuration(self, packed: bytes) -> None:
        """Keep a configuration, instead of the one before.

        Raises:
            OSError: it cannot be kept.

        """
        await self.forget(CONFIGURATION)
        await self._keep(CONFIGURATION, packed)

    async def _keep(self, name: str, data: bytes | bytearray) -> None:
        fd = sealed_memory(name, data)
        try:
            await self._send("FDSTORE=1", f"FDNAME={name}", fds=[fd])
        finally:
            os.close(fd)

    async def keep_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Keep sockets.

        Raises:
            OSError: they cannot be kept.

        """
        if sockets and self._parcel is None:
            self._parcel, theirs = socket.socketpair()
            self._parcel.settimeout(0)
            with theirs:
                # Unwatched: when our end closes, systemd still has to keep theirs.
                await self._send("FDSTORE=1", f"FDNAME={PARCEL}", "FDPOLL=0", fds=[theirs.fileno()])
        for start in range(0, len(sockets), FDS_PER_MESSAGE):
            some = [sock.fileno() for sock in sockets[start : start + FDS_PER_MESSAGE]]
            assert self._parcel is not None  # noqa: S101 (there is one where there are sockets)
            socket.send_fds(self._parcel, [b"."], some)
            await trio.lowlevel.checkpoint()

    async def settle(self) -> None:
        """Close the parcel, and wait until systemd has taken all that was sent.

        Raises:
            OSError: it does not.

        """
        if self._parcel is not None:
            self._parcel.close()
            self._parcel = None
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
    """The segments and sockets that were kept for this process; each is taken once.

    Args:
        handed: the descriptors that this process was started with.
        store: where they came from; it is told to let go of what was taken.

    Attributes:
        configuration: the packed one that the service last ran with. The store keeps it.
        others: the descriptors that are no part of a handover.

    """

    def __init__(self, handed: Iterable[HandedOver], store: DescriptorStore) -> None:
        self._store = store
        self._segments: dict[int, int] = {}
        self._parcels: list[int] = []
        self.configuration: bytes | None = None
        self.others: list[HandedOver] = []
        for each in handed:
            if each.name == CONFIGURATION:
                self.configuration = _taken(each.fd)
            elif each.name == PARCEL:
                self._parcels.append(each.fd)
            elif found := _SEGMENT.fullmatch(each.name):
                self._segments[int(found[1])] = each.fd
            else:
                self.others.append(each)

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return len(self._segments)

    async def take_segment(self, index: int) -> bytes:
        """Return a segment; empty if it is missing.

        Raises:
            OSError: systemd cannot be told.

        """
        fd = self._segments.pop(index, None)
        if fd is None:
            return b""
        segment = _taken(fd)
        await self._store.forget(f"h{index}")
        return segment

    async def take_sockets(self) -> list[socket.socket]:
        """Return all sockets, non-blocking. From then on they are this process's alone.

        Raises:
            OSError: systemd cannot be told.

        """
        sockets: list[socket.socket] = []
        for parcel in self._parcels:
            with socket.socket(fileno=parcel) as sock:
                sock.settimeout(0)
                sockets += _unpack(sock)
        if self._parcels:
            self._parcels = []
            await self._store.forget(PARCEL)
            await self._store.settle()
        return sockets


def _taken(fd: int) -> bytes:
    """Return what is in a sealed memory, and close our descriptor of it."""
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _unpack(parcel: socket.socket) -> Iterator[socket.socket]:
    """Yield the sockets that wait at a parcel, whose other end was closed."""
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(parcel, 1, FDS_PER_MESSAGE, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return  # it was not closed: the process that filled it was interrupted
        for fd in fds:
            sock = socket.socket(fileno=fd)
            sock.settimeout(0)
            yield sock
        if not data:
            return
