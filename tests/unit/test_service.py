"""The daemon's messages to systemd, and that a ping is evidence of progress."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from broadcasterd.host.service import ANNOUNCE_S, Service
from broadcasterd.host.systemd import Notifier


class Manager:
    """A service manager that listens, and a daemon whose figures the test sets."""

    def __init__(self, directory: Path, *, watchdog: float | None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"{directory}/notify")
        self.steps = 0
        self.status = "all is well"
        self.notifier = Notifier(f"{directory}/notify")
        self.service = Service(
            self.notifier,
            watchdog=watchdog,
            status=lambda: self.status,
            progress=lambda: self.steps,
        )

    def heard(self) -> list[list[str]]:
        """Return what was told since the last time, each time with its assignments."""
        told = []
        while True:
            try:
                told.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return told

    def pings(self) -> int:
        """Return how many pings there were since the last time."""
        return sum("WATCHDOG=1" in told for told in self.heard())

    def make_busy(self) -> None:
        """Let it take nothing more."""
        while self.notifier.send("X=1"):
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Return a manager that watches with a period of 4 s."""
    manager = Manager(tmp_path, watchdog=4.0)
    yield manager
    manager.close()


# --- the watchdog ----------------------------------------------------------------------------


async def test_a_supervisor_that_works_is_pinged_for_in_each_period(
    manager: Manager, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(manager.service.run)
    pings = []
    for _ in range(60):  # it finishes a step each second
        await trio.sleep(1)
        pings.append(manager.pings())
        manager.steps += 1

    assert all(any(pings[second : second + 3]) for second in range(57))


async def test_a_supervisor_that_hangs_is_not_pinged_for(
    manager: Manager, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(manager.service.run)
    await trio.sleep(10)

    assert 1 == manager.pings(), "the one on the start"

    manager.status = "something else is new"
    await trio.sleep(10)

    assert [["STATUS=something else is new"]] == manager.heard()


async def test_a_ping_that_was_not_taken_is_tried_again(
    manager: Manager, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(manager.service.run)
    await trio.sleep(0.5)
    manager.make_busy()
    manager.steps += 1
    await trio.sleep(2)
    manager.heard()
    await trio.sleep(1)

    assert 1 == manager.pings()


async def test_without_a_watchdog_there_are_only_news(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    manager = Manager(tmp_path, watchdog=None)
    nursery.start_soon(manager.service.run)
    await trio.sleep(10.5)
    manager.status = "two sessions"
    await trio.sleep(10)

    statuses = [line for told in manager.heard() for line in told if line.startswith("STATUS")]

    assert ["STATUS=all is well", "STATUS=two sessions"] == statuses
    manager.close()


# --- changes of state ------------------------------------------------------------------------


async def test_ready_comes_with_the_status(manager: Manager) -> None:
    await manager.service.ready()

    assert [["READY=1", "STATUS=all is well"]] == manager.heard()


async def test_a_reload_is_told_with_its_time_and_ends_with_ready(manager: Manager) -> None:
    await manager.service.reloading()
    manager.service.remark = "the last reload was refused:\nwhy"
    await manager.service.ready()
    [reloading, ready] = manager.heard()

    assert "RELOADING=1" == reloading[0]
    assert int(reloading[1].removeprefix("MONOTONIC_USEC=")) > 0
    assert ["READY=1", "STATUS=all is well; the last reload was refused: why"] == ready


async def test_while_it_drains_more_time_is_asked_for_with_each_step(
    manager: Manager, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    await manager.service.stopping()
    nursery.start_soon(manager.service.run)
    await trio.sleep(10)
    [stopping, first] = manager.heard()

    assert "STOPPING=1" == stopping[0]
    assert "EXTEND_TIMEOUT_USEC=5000000" in first

    manager.steps += 1
    await trio.sleep(2)

    assert [["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=5000000"]] == manager.heard()


async def test_what_is_stopping_is_not_ready_again(manager: Manager) -> None:
    await manager.service.stopping()
    await manager.service.reloading()
    await manager.service.ready()

    assert 1 == len(manager.heard())


async def test_a_change_is_told_again_until_it_is_taken(
    manager: Manager, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    manager.make_busy()
    nursery.start_soon(manager.service.ready)
    await trio.sleep(ANNOUNCE_S / 2)
    manager.heard()
    await trio.sleep(ANNOUNCE_S / 2)

    assert [["READY=1", "STATUS=all is well"]] == manager.heard()


async def test_a_manager_that_never_takes_it_does_not_stop_the_daemon(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    manager.make_busy()
    await manager.service.stopping()
