"""The inbox of a session: a bounded queue into one task, which takes next to nothing while empty.

It does what a memory channel of Trio does for one receiver. But each session has one, idle or not,
and a channel's two ends, its state and its tables are 3 KB.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, TypeVar

import outcome
import trio

from broadcasterd.broadcast.publication import Publication

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InboxStatistics:
    """A snapshot: messages in the inbox, and tasks that wait until there is room for theirs."""

    current_buffer_used: int
    tasks_waiting_send: int


class Inbox(Generic[T]):
    """Messages on their way to the one task that receives them.

    Args:
        size: how many there is room for.

    """

    __slots__ = ("_is_closed", "_messages", "_receiver", "_senders", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._is_closed = False
        self._messages: list[T] = []
        self._senders: list[tuple[trio.lowlevel.Task, T]] = []  # that wait
        self._receiver: trio.lowlevel.Task | None = None  # while it waits

    def statistics(self) -> InboxStatistics:
        """Return a snapshot."""
        return InboxStatistics(len(self._messages), len(self._senders))

    @property
    def is_empty(self) -> bool:
        """Whether there is no message to receive."""
        return not self._messages

    @property
    def is_waited_for(self) -> bool:
        """Whether it is empty, and the task that receives waits for a message."""
        return self._receiver is not None

    def send_nowait(self, message: T) -> None:
        """Put a message in.

        Raises:
            trio.WouldBlock: there is no room.
            trio.ClosedResourceError: it is closed.

        """
        if self._is_closed:
            raise trio.ClosedResourceError
        if len(self._messages) >= self._size:
            raise trio.WouldBlock
        self._messages.append(message)
        if self._receiver is not None:
            trio.lowlevel.reschedule(self._receiver)
            self._receiver = None

    async def send(self, message: T) -> None:
        """Put a message in as soon as there is room; who has waited longest is first.

        Raises:
            trio.ClosedResourceError: it was closed before there was room.

        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.send_nowait(message)
        except trio.WouldBlock:
            sender = trio.lowlevel.current_task(), message
            self._senders.append(sender)

            def give_up(_: object) -> trio.lowlevel.Abort:
                self._senders.remove(sender)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(give_up)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def receive_nowait(self) -> T:
        """Take the oldest message.

        Raises:
            trio.WouldBlock: there is none.
            trio.EndOfChannel: there is none, and it is closed.

        """
        if not self._messages:
            raise trio.EndOfChannel if self._is_closed else trio.WouldBlock
        message = self._messages.pop(0)
        if self._senders:
            sender, waiting = self._senders.pop(0)
            self._messages.append(waiting)
            trio.lowlevel.reschedule(sender)
        return message

    def wait(self) -> Awaitable[object]:
        """Wait until there is a message, or there will be none.

        Await it at once. It is no coroutine of its own: each idle session would keep that.
        """
        if self._messages or self._is_closed:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 (the caller awaits it)
        self._receiver = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._stop_waiting)  # noqa: ASYNC105 (as above)

    def close(self) -> None:
        """Take no more messages: those that are in remain, those that wait are refused."""
        self._is_closed = True
        for sender, _ in self._senders:
            trio.lowlevel.reschedule(sender, outcome.Error(trio.ClosedResourceError()))
        self._senders.clear()
        if self._receiver is not None:
            trio.lowlevel.reschedule(self._receiver)
            self._receiver = None

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED


class Heartbeat:
    """A message to the session task: send every live subscriber a heartbeat."""


class Nudge:
    """A message to the session task: there is something to look at."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A message to the session task: what was done for it has failed, and so does it."""

    error: Exception


Message = Publication | Heartbeat | Nudge | Failure
