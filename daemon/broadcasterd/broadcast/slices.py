"""The one loop over thousands of items: it lets all other tasks run every few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import trio

SLICE = 200
"""Items between two checkpoints: some 2 ms of writes to sockets, which the rest can wait for."""

T = TypeVar("T")


async def for_each(items: Iterable[T], act: Callable[[T], object], *, slice_: int = SLICE) -> None:
    """Call ``act`` with each item, and let others run after every ``slice_`` of them.

    What ``items`` iterates over may change meanwhile: pass a copy where that matters.
    """
    for count, item in enumerate(items, start=1):
        act(item)
        if count % slice_ == 0:
            await trio.lowlevel.checkpoint()
