"""The descriptor store: real descriptors are kept with a manager, and taken again.

The manager is a task of the test. It treats messages as systemd does: it keeps descriptors by
name, closes those that are to be forgotten, and takes a barrier by closing its end.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from broadcasterd.handover.descriptor_store import FDS_PER_MESSAGE, PARCEL, DescriptorStore, Stored
from broadcasterd.host.systemd import HandedOver, Notifier


class Manager:
    """Keeps what is sent to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: list[HandedOver] = []
        self.is_stuck = False
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Do as it is told, until cancelled."""
        with self._socket as sock:
            await sock.bind(str(self.path))
            task_status.started()
            await self._listen(sock)

    async def _listen(self, sock: trio.socket.SocketType) -> None:
        while True:
            size = socket.CMSG_SPACE(4 * (FDS_PER_MESSAGE + 3))
            message, ancillary, _, _ = await sock.recvmsg(4096, size)
            fds = array.array("i")
            for _, _, data in ancillary:
                fds.frombytes(data)
            self._do(dict(line.split("=", 1) for line in message.decode().splitlines()), list(fds))

    def _do(self, said: dict[str, str], fds: list[int]) -> None:
        if "FDSTORE" in said:
            self.kept += [HandedOver(said["FDNAME"], fd) for fd in fds]
        elif "FDSTOREREMOVE" in said:
            for each in self.kept:
                if each.name == said["FDNAME"]:
                    os.close(each.fd)
            self.kept = [each for each in self.kept if each.name != said["FDNAME"]]
        elif self.is_stuck:
            self.kept += [HandedOver("a barrier", fd) for fd in fds]
        else:
            for fd in fds:
                os.close(fd)

    def hand(self) -> list[HandedOver]:
        """Return descriptors of the same, as the next start of the service gets them."""
        return [HandedOver(each.name, os.dup(each.fd)) for each in self.kept]

    def close(self) -> None:
        """Close everything."""
        for each in self.kept:
            os.close(each.fd)


@pytest.fixture
async def manager(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Manager]:
    """Start a manager."""
    manager = Manager(tmp_path / "notify")
    await nursery.start(manager.run)
    yield manager
    manager.close()


@pytest.fixture
def store(manager: Manager) -> DescriptorStore:
    """Return a store that the manager keeps."""
    return DescriptorStore(Notifier(str(manager.path)), room=10)


async def test_segments_are_kept_and_taken_once(manager: Manager, store: DescriptorStore) -> None:
    for index, segment in enumerate((b"first", b"second")):
        await store.keep_segment(index, bytearray(segment))
    await store.settle()
    stored = Stored(manager.hand(), store)

    assert 2 == stored.segments
    assert [b"first", b"second"] == [await stored.take_segment(index) for index in range(2)]

    await store.settle()

    assert [] == manager.kept
    assert b"" == await stored.take_segment(0)


async def test_a_segment_can_be_changed_by_nobody(manager: Manager, store: DescriptorStore) -> None:
    await store.keep_segment(0, bytearray(b"as it is"))
    await store.settle()
    [kept] = manager.kept

    assert fcntl.fcntl(kept.fd, fcntl.F_GET_SEALS) == (
        fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )
    with pytest.raises(PermissionError):
        os.pwrite(kept.fd, b"otherwise", 0)


async def test_sockets_are_kept_open_whatever_their_number(
    manager: Manager, store: DescriptorStore
) -> None:
    pairs = [socket.socketpair() for _ in range(FDS_PER_MESSAGE + 1)]
    await store.keep_sockets([theirs for theirs, _ in pairs])
    await store.settle()
    for theirs, _ in pairs:
        theirs.close()
    stored = Stored(manager.hand(), store)

    assert [PARCEL] == [each.name for each in manager.kept], "one descriptor, for all of them"

    taken = await stored.take_sockets()

    assert len(pairs) == len(taken)
    assert [] == manager.kept
    for sock, (_, ours) in zip(taken, pairs, strict=True):
        assert not sock.getblocking()
        sock.send(b"still here")
        assert b"still here" == ours.recv(100)
        sock.close()
        ours.close()


async def test_of_a_parcel_that_was_not_finished_what_is_there_is_taken(
    manager: Manager, store: DescriptorStore
) -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        await store.keep_sockets([theirs])
        await DescriptorStore(Notifier(str(manager.path)), room=10).settle()
        [taken] = await Stored(manager.hand(), store).take_sockets()
        taken.close()


async def test_what_is_not_of_a_handover_is_left_for_others(store: DescriptorStore) -> None:
    handed = [HandedOver(name, -1) for name in ("http", "h0", PARCEL, "h", "hx", "h1", "ssh")]
    stored = Stored(handed, store)

    assert ["http", "h", "hx", "ssh"] == [each.name for each in stored.others]
    assert 2 == stored.segments


async def test_a_manager_that_does_not_take_it_is_not_waited_for_for_ever(
    manager: Manager, store: DescriptorStore, autojump_clock: trio.testing.MockClock
) -> None:
    manager.is_stuck = True
    with pytest.raises(TimeoutError, match="did not take"):
        await store.settle()


async def test_what_cannot_be_sent_is_no_success(tmp_path: Path) -> None:
    store = DescriptorStore(Notifier(str(tmp_path / "nobody")), room=10)
    with pytest.raises(FileNotFoundError):
        await store.keep_segment(0, bytearray(b"x"))
