"""`top`: asks again and again, and draws.

Tasks of one nursery ask for figures and for sessions, read keys and signals, and keep the clock
going; they share one `View`, and each draws after it has changed that.
"""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from math import inf

import trio
from rich.console import Console

from broadcasterd.cli.screen import Screen
from broadcasterd.cli.view import Trouble, View, busiest
from broadcasterd.client import AsyncClient, RequestFailed, SessionFigures, Unavailable
from broadcasterd.client.connection import backoff

SESSIONS_INTERVAL_S = 5.0
"""Between two listings: of 10,000 sessions one is 10 requests."""

SESSIONS_SPARED = 20
"""Of this many times as long as a listing takes, it is one; the daemon has other things to do."""

MAX_PAUSE_S = 5.0
"""Between two attempts: somebody is watching."""

CLOCK_S = 1.0

_QUITS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALLED = 128  # and the signal's number is the exit status, as in shells
_OTHERS = (signal.SIGWINCH, signal.SIGTSTP)


class Top:
    """Shows a daemon's figures until somebody has seen enough.

    Args:
        figures: asks the daemon.
        url: where that is.
        console: the terminal's.
        interval: seconds between two questions.

    """

    def __init__(
        self, figures: AsyncClient, url: str, console: Console, *, interval: float
    ) -> None:
        self._figures = figures
        self._interval = interval
        self._view = View(url, keys="q quits")
        self._screen = Screen(console, lambda: replace(self._view, height=console.height))
        self._nursery: trio.Nursery
        self._status = 0
        self._refused: RequestFailed | None = None

    async def run(self) -> int:
        """Show the figures; return the exit status: 0 after ``q``, else that of the signal.

        Raises:
            RequestFailed: the daemon refuses, and will go on to.

        """
        with (
            trio.open_signal_receiver(*_QUITS, *_OTHERS) as signals,
            self._screen.taken(),
        ):
            async with trio.open_nursery() as self._nursery:
                for task in (self._follow, self._follow_sessions, self._read_keys, self._tick):
                    self._nursery.start_soon(task)
                async for number in signals:
                    self._heed(number)
        if self._refused is not None:
            raise self._refused
        return self._status

    def _quit(self, status: int = 0) -> None:
        self._status = status
        self._nursery.cancel_scope.cancel()

    def _show(self, view: View) -> None:
        self._view = view
        try:
            self._screen.redraw()
        except OSError:  # the terminal is gone
            self._quit(1)

    def _heed(self, number: int) -> None:
        if number in _QUITS:
            self._quit(_SIGNALLED + number)
        elif number == signal.SIGTSTP:
            self._screen.suspend()
        self._show(self._view)

    async def _read_keys(self) -> None:
        while keys := await self._screen.keys():
            if b"q" in keys.lower():
                break
        self._quit()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(CLOCK_S)
            self._show(self._view)

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                stats, health = await self._figures.stats(), await self._figures.health()
            except Unavailable as error:
                before = self._view.trouble
                trouble = Trouble(str(error), before.since if before else time.time())
                self._show(replace(self._view, trouble=trouble))
                pause = backoff(self._interval, failures, at_most=MAX_PAUSE_S)
                failures += 1
            except RequestFailed as error:
                self._refuse(error)
                return
            else:
                news = replace(self._view, stats=stats, health=health, trouble=None)
                self._show(replace(news, asked_at=time.time()))
                pause, failures = self._interval, 0
            await trio.sleep(pause)

    async def _follow_sessions(self) -> None:
        before: list[SessionFigures] = []
        asked_at = -inf
        while True:
            began_at = trio.current_time()
            try:
                now = [each async for each in self._figures.sessions()]
            except Unavailable:
                pass  # the others tell it
            except RequestFailed as error:
                self._refuse(error)
                return
            else:
                since, asked_at = began_at - asked_at, began_at
                self._show(replace(self._view, sessions=busiest(now, before, since)))
                before = now
            took = trio.current_time() - began_at
            await trio.sleep(max(SESSIONS_INTERVAL_S, took * SESSIONS_SPARED))

    def _refuse(self, error: RequestFailed) -> None:
        self._refused = error
        self._quit()
