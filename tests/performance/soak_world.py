"""What all parts of the soak share: the daemon, the seed, the figures, and the gate.

The gate is what makes a random load checkable: now and then it is held, until everybody has come
to rest, and in that quiet moment the daemon's figures are exact.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.performance.soak_ledger import Ledger
from tests.support.daemon import Daemon
from tests.support.flood import ANSWER_S
from tests.support.http1 import Answer

SESSIONS = tuple(f"s{number}" for number in range(12))
_POPULARITY = tuple(1 / (number + 1) for number in range(len(SESSIONS)))


class Violation(Exception):  # noqa: N818 (it is a finding about the daemon)
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What may be only while the breaker is not closed; Unix times. The log will tell."""

    what: str
    began: float
    ended: float


class Gate:
    """Lets everybody act, or holds them."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._opened.set()
        self._held = trio.Event()
        self._acting = 0

    @property
    def is_held(self) -> bool:
        """Whether everybody shall come to rest."""
        return self._held.is_set()

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[None]:
        """Wait for the gate to be open; it is not held before what is inside is done."""
        await self._opened.wait()
        self._acting += 1
        try:
            yield
        finally:
            self._acting -= 1

    async def nap(self, seconds: float) -> None:
        """Sleep, but not while the gate is held."""
        with trio.move_on_after(seconds):
            await self._held.wait()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the gate while inside, once nobody acts."""
        self._opened = trio.Event()
        self._held.set()
        try:
            with trio.fail_after(2 * ANSWER_S):
                while self._acting:  # noqa: ASYNC110 (a poll is less than the bookkeeping)
                    await trio.sleep(0.01)
            yield
        finally:
            self._held = trio.Event()
            self._opened.set()


@dataclass(slots=True)
class Figures:
    """What happened so far. ``ends`` counts the reasons of ``event: broadcaster.end``."""

    published: int = 0
    duplicates: int = 0
    refused: int = 0
    unanswered: int = 0
    flooded: int = 0
    delivered: int = 0
    streams: int = 0
    resumed: int = 0
    cut: int = 0
    silent: int = 0
    over: int = 0
    turned_away: int = 0
    gaps: int = 0
    skips: int = 0
    deleted: int = 0
    quiet: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """Return them as a line of text."""
        ends = ", ".join(f"{reason} {count}" for reason, count in sorted(self.ends.items()))
        return (
            f"published {self.published} (+ {self.flooded} flooded, {self.duplicates} duplicates, "
            f"{self.refused} refused, {self.unanswered} unanswered), delivered {self.delivered}; "
            f"streams {self.streams} ({self.resumed} resumed, {self.cut} cut, {self.gaps} gaps, "
            f"{self.skips} of them skips, {self.over} over, {self.turned_away} turned away, "
            f"{self.silent} silent; ends: {ends or 'none'}); "
            f"deleted {self.deleted}, quiet {self.quiet}"
        )


@dataclass(frozen=True, slots=True)
class World:
    """The daemon, and all that is known of what it was asked to do.

    Attributes:
        sections: the daemon's configuration.
        closed: names of sessions that were closed at any time: only they may answer 204.

    """

    daemon: Daemon
    seed: int
    sections: dict[str, dict[str, Any]]
    ledger: Ledger = field(default_factory=Ledger)
    gate: Gate = field(default_factory=Gate)
    figures: Figures = field(default_factory=Figures)
    closed: set[str] = field(default_factory=set)
    doubts: list[Doubt] = field(default_factory=list)

    def random_for(self, name: str) -> random.Random:
        """Return the source of all decisions of one actor: the same for the same seed."""
        return random.Random(f"{self.seed} {name}")  # noqa: S311 (nothing secret)


def some_session(dice: random.Random) -> str:
    """Return one of the sessions; the first are the busiest, the last may expire."""
    return dice.choices(SESSIONS, _POPULARITY)[0]


def check_refusal(reply: Answer) -> None:
    """Check that a publisher was refused for a reason that there is in the soak."""
    retry_after = reply.headers.get("retry-after", "")
    if reply.status == 409 or (reply.status == 503 and retry_after.isdecimal()):
        return
    raise Violation(f"a publisher was answered {reply.status}, {reply.headers}, {reply.body!r}")
