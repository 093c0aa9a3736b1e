"""Publications on their way to an engine: what they bring is placed, and in no log yet."""

from __future__ import annotations

from collections.abc import Iterator

from broadcasterd.broadcast.publication import Publication, Receipt, ReceiptBook
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.errors import Problem

STAGED_BYTES = 1024 * 1024
"""Blocks that are staged at a time, if there are several publications: beyond it they wait."""


class Staging:
    """What one session hands to its engine at a time.

    The session's task alone appends to the log, and it waits for the engine meanwhile: the numbers
    that are given here are those that the events will have.

    Args:
        log: what is staged will follow what it has.

    Attributes:
        events: those that are new, over all publications, in order.
        size: the bytes of their blocks.

    """

    def __init__(self, log: ReplayLog) -> None:
        self.events: list[EncodedEvent] = []
        self.size = 0
        self.first = log.last + 1
        self._log = log
        self._keys: dict[str, int] = {}
        self._staged: list[tuple[Publication, list[EncodedEvent], Receipt]] = []

    def __bool__(self) -> bool:
        return bool(self._staged)

    @property
    def is_full(self) -> bool:
        """Whether there is enough of it."""
        return self.size >= STAGED_BYTES

    @property
    def is_settled(self) -> bool:
        """Whether all publishers have an answer."""
        return not self._staged or self._staged[-1][0].is_settled

    def add(self, publication: Publication) -> None:
        """Place the events of a publication, or settle it with what is wrong with it."""
        try:
            self._log.check_fit(publication.events)
        except Problem as problem:
            publication.settle(problem)
            return
        book = ReceiptBook(self._log)
        new = [event for event in publication.events if self._place(event, book)]
        self._staged.append((publication, new, book.issue()))

    def _place(self, event: EncodedEvent, book: ReceiptBook) -> bool:
        """Note the place of an event; return whether it is new."""
        key = event.key
        place = self.first + len(self.events)
        if key is not None:
            known = self._keys.get(key) or self._log.duplicate_of(key)
            if known is not None:
                book.note(known, accepted=False)
                return False
            self._keys[key] = place
        book.note(place, accepted=True)
        self.events.append(event)
        self.size += len(event.block)
        return True

    def __iter__(self) -> Iterator[tuple[Publication, list[EncodedEvent], Receipt]]:
        """Yield each publication with those of its events that are new, and its receipt."""
        return iter(self._staged)

    def settle(self) -> None:
        """Tell all publishers that their events are taken."""
        for publication, _, receipt in self._staged:
            publication.settle(receipt)

    def refuse(self, problem: Problem) -> int:
        """Tell all publishers that have no answer yet what is wrong.

        Return how many events there are of those that were told that theirs are taken.
        """
        lost = 0
        for publication, events, _ in self._staged:
            if publication.is_settled:
                lost += len(events)
            else:
                publication.settle(problem)
        return lost
