"""One session that this node follows: what it is told, in order and without a hole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadcasterd.engine.port import Arrived, Follower, KeptEvent, KeptSession
from broadcasterd.engine.redis.wire import MICROSECONDS, Keys, Said, read_entry

EARLY_BYTES = 4 * 1024 * 1024
"""What may come while a node asks for what it lacks. Beyond it, it asks once more."""


class Following:
    """What a follower has, and what comes while it catches up.

    Args:
        follower: gets the events.
        keys: those of its session.

    Attributes:
        incarnation, last, at: the last event that it was given; ``at`` is its time, in
            microseconds, and empty where that is not known.
        is_live: whether what comes follows what it has; else it is to catch up first.
        told: the streams that the others were told of; ``streams`` are those that they are to be.
        everywhere: the streams on all nodes, when that was last said.

    """

    def __init__(self, follower: Follower, keys: Keys) -> None:
        self.follower = follower
        self.keys = keys
        self.streams = self.told = self.everywhere = 0
        self.is_live = False
        self.is_over = False
        self._taken: list[KeptEvent] = []  # and not passed on
        self._early: list[Said] = []
        self._early_bytes = 0
        self._is_incomplete = False
        self.incarnation, self.last = follower.has
        self.at = b""

    def go_back(self) -> None:
        """Go on from what the follower has."""
        if (self.incarnation, self.last) != self.follower.has:
            self.incarnation, self.last = self.follower.has
            self.at = b""
        self.is_live = False

    def begin(self) -> None:
        """Keep what comes until :meth:`take_rest`."""
        self.is_live = False
        self._early.clear()
        self._early_bytes = 0
        self._is_incomplete = False

    def is_replaced(self, incarnation: str) -> bool:
        """Take notice of another incarnation; return whether to catch up now."""
        self._is_incomplete = not self.is_live
        return self.is_live and incarnation != self.incarnation

    def take(self, said: Said, size: int) -> bool:
        """Take what a channel says; return whether it follows, and nothing is missing."""
        if not self.is_live:
            self._early_bytes += size
            if self._early_bytes <= EARLY_BYTES:
                self._early.append(said)
            else:
                self._is_incomplete = True
            return True
        if said.incarnation != self.incarnation or said.first > self.last + 1:
            return False
        if said.first <= self.last and self.at and int(said.at) > int(self.at):
            return False  # a number was given again: what we have, Redis has lost
        if said.last > self.last:
            self._taken += said.kept(after=self.last)
            self.last, self.at = said.last, said.at
        return True

    def pass_on(self) -> None:
        """Have the follower take what was taken."""
        if self._taken:
            taken, self._taken = self._taken, []
            self.follower.take(Arrived(taken))

    def take_rest(self, answer: Sequence[Any]) -> bool:
        """Take the answer of ``follow.lua``, and what came meanwhile.

        Return whether nothing is missing.

        Raises:
            ValueError: an entry is none of ours.

        """
        named, last, opened_at, subject, last_at, floor_at, everywhere, entries = answer
        incarnation = named.decode()
        events = [read_entry(entry_id, fields[1]) for entry_id, fields in entries]
        floor = events[0].seq - 1 if events else last
        anew = None
        if incarnation != self.incarnation or floor > self.last:
            if not events:
                floor_at = last_at
            anew = KeptSession(
                self.follower.name,
                incarnation,
                int(opened_at) / MICROSECONDS,
                subject.decode() or None,
                floor,
                int(floor_at or last_at or opened_at) / MICROSECONDS if floor else None,
                last,
            )
            self.at = b""
        if entries:
            self.at = entries[-1][0].partition(b"-")[2]
        self.incarnation, self.last = incarnation, last
        self.everywhere = int(everywhere)
        self.is_live = True  # before it takes them: it may ask for them again
        if events or anew:
            self.follower.take(Arrived(events, anew))
        early, self._early = self._early, []
        is_whole = not self._is_incomplete and all(self.take(said, 0) for said in early)
        self.pass_on()
        return is_whole
