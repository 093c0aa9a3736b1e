"""The daemon as a service of systemd: the messages to the manager, and their times.

The watchdog is pinged on evidence only: the loop runs this task, and the supervisor has finished
another step since the last ping. A stuck supervisor means no ping, and so a restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from broadcasterd.host.systemd import Notifier

STATUS_S = 1.0
"""How old the status line of ``systemctl status`` may be."""

PINGS_PER_PERIOD = 4
"""Checks for progress in one period of the watchdog: late by a supervisor's step, never by two."""

MIN_INTERVAL_S = 0.01
"""A watchdog with a shorter period than a few of these cannot be satisfied anyway."""

EXTENSION_S = 5.0
"""While the daemon drains and makes progress, systemd waits so much longer for its end."""

RETRY_S = 0.05
ANNOUNCE_S = 5.0
"""A change of state should arrive: a manager that is too busy to take it is told again, for so
long. After that, the daemon goes on all the same."""


class Service:
    """Tells systemd of every change of state, and all the time that the daemon is alive.

    Args:
        notifier: sends the messages.
        watchdog: the seconds within which the manager wants a ping; ``None`` if it wants none.
        status: returns the line that an operator shall see.
        progress: returns a number that changes with each step that the supervisor finishes.

    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        watchdog: float | None,
        status: Callable[[], str],
        progress: Callable[[], int],
    ) -> None:
        self._notifier = notifier
        self._watchdog = watchdog
        self._status = status
        self._progress = progress
        self._progress_told: int | None = None
        self._status_told: str | None = None
        self._stopping = False
        self.remark = ""
        """A text added to the status until it is changed: why a reload was refused."""

    async def ready(self) -> None:
        """Say that the daemon serves, on its start or after a reload."""
        if not self._stopping:
            await self._announce("READY=1", f"STATUS={self._status_line()}")

    async def reloading(self) -> None:
        """Say that the configuration is being read; :meth:`ready` is to follow."""
        if not self._stopping:
            now = time.monotonic_ns() // 1000
            await self._announce("RELOADING=1", f"MONOTONIC_USEC={now}")

    async def stopping(self) -> None:
        """Say that the daemon drains."""
        self._stopping = True
        await self._announce("STOPPING=1", f"STATUS={self._status_line()}")

    async def run(self) -> None:
        """Ping and tell the status, until cancelled."""
        interval = STATUS_S
        if self._watchdog is not None:
            interval = max(MIN_INTERVAL_S, min(interval, self._watchdog / PINGS_PER_PERIOD))
        while True:
            self.beat()
            await trio.sleep(interval)

    def beat(self) -> None:
        """Tell the manager what is new since the last time, if anything is."""
        progress, status = self._progress(), self._status_line()
        news = []
        if progress != self._progress_told:
            news.append("WATCHDOG=1")
            if self._stopping:
                news.append(f"EXTEND_TIMEOUT_USEC={round(EXTENSION_S * 1e6)}")
        if status != self._status_told:
            news.append(f"STATUS={status}")
        if news and self._notifier.send(*news):
            self._progress_told, self._status_told = progress, status

    async def _announce(self, *assignments: str) -> None:
        with trio.move_on_after(ANNOUNCE_S):
            while not self._notifier.send(*assignments):  # noqa: ASYNC110 (nothing tells of room)
                await trio.sleep(RETRY_S)

    def _status_line(self) -> str:
        """Return one line: a line break would begin another assignment."""
        line = f"{self._status()}; {self.remark}" if self.remark else self._status()
        return " ".join(line.splitlines())
