"""Events that are in a log, and on their way to its readers."""

from __future__ import annotations

from time import perf_counter

from broadcasterd.core.segment import Entry

MAX_BATCH_BYTES = 32 * 1024
"""Frames that one fan-out joins: half of what a live subscriber's empty socket takes."""

MAX_BATCH_EVENTS = 250
"""Half of what is retained by default: who reads at once gets all of them, however many come."""


class Fresh:
    """Events that were logged and not broadcast yet, and the bytes of their frames.

    Args:
        offered: the last event before the publications that they are from.

    Attributes:
        since: when the first of them was logged, on the clock of durations.
        is_much: whether there is enough to broadcast.

    """

    __slots__ = ("entries", "is_much", "offered", "since", "size")

    def __init__(self, offered: int) -> None:
        self.offered = offered
        self.entries: list[Entry] = []
        self.size = 0
        self.is_much = False
        self.since = 0.0

    def add(self, entry: Entry) -> bool:
        """Add an event that was logged; return whether there is enough to broadcast."""
        if not self.entries:
            self.since = perf_counter()
        self.entries.append(entry)
        self.size += len(entry.frame)
        self.is_much = self.size >= MAX_BATCH_BYTES or len(self.entries) >= MAX_BATCH_EVENTS
        return self.is_much

    def take(self) -> list[Entry]:
        """Return the events, to be broadcast now."""
        entries, self.entries, self.size, self.is_much = self.entries, [], 0, False
        return entries
