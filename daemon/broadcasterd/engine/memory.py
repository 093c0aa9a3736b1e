"""The engine that keeps nothing: events are in memory, and gone with the process."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.port import Health, Note, Placed, Taker


class MemoryEngine:
    """Keeps nothing. A session asks it whether it does, and goes its own way."""

    keeps = False
    is_shared = False
    generation = -1  # a session tells it nothing

    def __init__(self) -> None:
        self.health = Health("memory")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have nothing to do."""
        task_status.started()

    async def load(self, taker: Taker) -> None:
        """Have nothing to give."""

    async def append(
        self,
        name: str,  # noqa: ARG002 (the port's)
        incarnation: str,
        first: int,
        at: float,  # noqa: ARG002 (the port's)
        events: Sequence[EncodedEvent],
    ) -> Placed:
        """Return the places as they are."""
        return Placed(incarnation, range(first, first + len(events)))

    def note(self, *notes: Note) -> None:
        """Forget it."""

    async def settled(self) -> None:
        """Have nothing to wait for."""
