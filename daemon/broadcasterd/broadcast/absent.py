"""Sessions that are not there: those that were closed for good, and those that are promised."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from broadcasterd.broadcast.clock import Clock
from broadcasterd.config import Settings

T = TypeVar("T")


class AbsentSessions:
    """What is remembered of sessions that are not open: ``max_sessions`` of each, for a while.

    Args:
        settings: those in force; ``sessions.session_ttl`` is for how long.
        clock: the daemon's.

    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._ended: dict[str, float] = {}  # names, and when they were closed, oldest first
        self._promised: dict[str, tuple[str, float]] = {}  # incarnations, and when, oldest first

    def was_ended(self, name: str) -> bool:
        """Whether that session was closed (not merely forgotten), and not opened since."""
        return name in self._ended

    def ended(self) -> tuple[tuple[str, float], ...]:
        """Return the sessions that were closed, and when, oldest first."""
        return tuple(self._ended.items())

    def note_ended(self, name: str, at: float) -> None:
        """Remember that a session was closed."""
        self._ended.pop(name, None)
        self._ended[name] = at

    def promise(self, name: str) -> str:
        """Return the incarnation that a session will have, once it is opened."""
        if name not in self._promised:
            self._promised[name] = secrets.token_hex(4), self._clock.now()
            self._drop_oldest(self._promised)
        incarnation, _ = self._promised[name]
        return incarnation

    def leave(self, name: str) -> str:
        """Forget a session, for it is opened; return its incarnation, as it was promised if so."""
        self._ended.pop(name, None)
        incarnation, _ = self._promised.pop(name, (secrets.token_hex(4), 0.0))
        return incarnation

    def forget_surplus(self) -> list[str]:
        """Forget the names that are too many; return those."""
        return self._drop_oldest(self._ended)

    def forget_old(self) -> Iterator[str]:
        """Forget what is past its time; yield the names that were remembered as closed."""
        latest = self._clock.now() - self._settings.sessions.session_ttl
        while self._ended:
            name, ended_at = next(iter(self._ended.items()))
            if ended_at > latest:
                break
            del self._ended[name]
            yield name
        while self._promised:
            name, (_, promised_at) = next(iter(self._promised.items()))
            if promised_at > latest:
                break
            del self._promised[name]

    def _drop_oldest(self, names: dict[str, T]) -> list[str]:
        oldest = [*islice(names, max(0, len(names) - self._settings.sessions.max_sessions))]
        for name in oldest:
            del names[name]
        return oldest
