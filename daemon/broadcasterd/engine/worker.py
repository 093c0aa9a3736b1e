"""One thread that does what it is told, in order: what waits for a disk is not to stop the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

import outcome
import trio

T = TypeVar("T")


class Worker:
    """A thread that lives as long as its owner: it gets calls, and their outcomes come back.

    Nothing is shared: what a call works on, no other task touches until the outcome is there.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call[object] | None] = SimpleQueue()
        # A disk that hangs for ever does not keep the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, act: Callable[[], T]) -> T:
        """Have the thread call a function; return what that returns, or raise what it raises.

        Cancelled, the call is made all the same.
        """
        call = _Call(act)
        self._calls.put(call)  # type: ignore[arg-type] # whoever waits for it knows its type
        await call.done.wait()
        assert call.outcome is not None  # noqa: S101 (it is done)
        return call.outcome.unwrap()

    def stop(self) -> None:
        """Let the thread end after the calls that were made."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call.make()
            del call  # while the next is waited for


class _Call(Generic[T]):
    """A call on its way to the thread, and its outcome on its way back."""

    __slots__ = ("_act", "_token", "done", "outcome")

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._token = trio.lowlevel.current_trio_token()
        self.done = trio.Event()
        self.outcome: outcome.Maybe[T] | None = None

    def make(self) -> None:
        """Make the call, in the thread."""
        self.outcome = outcome.capture(self._act)
        with suppress(trio.RunFinishedError):  # then nobody is left who waits
            self._token.run_sync_soon(self.done.set)
