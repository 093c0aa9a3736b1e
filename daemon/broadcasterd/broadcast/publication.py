"""A publication: events on their way into a session's log, and the receipt on its way back."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import msgspec
import trio

from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.errors import Problem


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a publication. Ids are ``None`` only where it held no event.

    A duplicate counts under ``duplicates`` and has the id of the event that is retained, so
    that a retry is answered as the first try was.
    """

    accepted: int
    duplicates: int
    first_id: str | None
    last_id: str | None

    @classmethod
    def of_one(cls, event_id: str, *, accepted: bool) -> Receipt:
        """Return the receipt for a single event."""
        return cls(int(accepted), int(not accepted), event_id, event_id)


class Publication:
    """Events on their way into a log, and the receipt on its way back.

    Attributes:
        is_settled: whether its publisher was told.

    """

    __slots__ = ("_publisher", "events", "is_settled", "problem", "receipt")

    def __init__(self, events: Sequence[EncodedEvent]) -> None:
        self.events = events
        self.is_settled = False
        self._publisher: trio.lowlevel.Task | None = None  # while it waits
        self.receipt: Receipt | None = None
        self.problem: Problem | None = None

    def settle(self, outcome: Receipt | Problem) -> None:
        """Tell the publisher."""
        if isinstance(outcome, Problem):
            self.problem = outcome
        else:
            self.receipt = outcome
        self.events = ()  # whoever still refers to this keeps no bodies
        self.is_settled = True
        if self._publisher is not None:
            trio.lowlevel.reschedule(self._publisher)
            self._publisher = None

    def wait(self) -> Awaitable[object]:
        """Wait until it is settled; only its publisher does, and awaits this at once."""
        if self.is_settled:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 (the caller awaits it)
        self._publisher = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._stop_waiting)  # noqa: ASYNC105 (as above)

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._publisher = None
        return trio.lowlevel.Abort.SUCCEEDED


class ReceiptBook:
    """Counts the accepted events of one publication."""

    def __init__(self, log: ReplayLog) -> None:
        self._log = log
        self._accepted = self._duplicates = 0
        self._first: int | None = None
        self._last: int | None = None

    def note(self, seq: int, *, accepted: bool) -> None:
        """Count an event, or the one that it is a duplicate of."""
        self._accepted += accepted
        self._duplicates += not accepted
        self._first = seq if self._first is None else self._first
        self._last = seq

    def issue(self) -> Receipt:
        """Return the receipt for the events that were counted."""
        first, last = self._first, self._last
        first_id = None if first is None else self._log.id_of(first)
        last_id = first_id if last is None or last == first else self._log.id_of(last)
        return Receipt(self._accepted, self._duplicates, first_id, last_id)
