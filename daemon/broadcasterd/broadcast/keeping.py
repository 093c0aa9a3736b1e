"""What a session has to do with its engine, beside publishing: telling of it, and letting go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from broadcasterd.broadcast.clock import Clock
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.core.wire import block_of
from broadcasterd.engine.port import Engine, KeptEvent, KeptSession, Opened, Placed, Trimmed

WASTED_BYTES = 64 * 1024
"""What left the log may take so much in the engine, and as much as what is left."""


class Keeping:
    """What an engine knows of one log.

    Args:
        engine: keeps its events.
        log: has them in memory.
        clock: the daemon's.

    """

    __slots__ = ("_bytes", "_clock", "_log", "_told_in", "engine")

    def __init__(self, engine: Engine, log: ReplayLog, clock: Clock) -> None:
        self.engine = engine
        self._log = log
        self._clock = clock
        self._bytes = 0  # of events that the engine has, about
        self._told_in = -1

    @property
    def is_told(self) -> bool:
        """Whether the engine, as it is now, knows of all that there is."""
        return self._told_in == self.engine.generation

    def count_as_told(self, size: int = 0) -> None:
        """Note that the engine knows of all that there is, or of so many bytes more."""
        self._told_in = self.engine.generation
        self._bytes += size

    def tell(self, session: KeptSession) -> None:
        """Tell the engine of all that there is."""
        self.engine.note(Opened(session, [*self._events()]))
        self._bytes = self._log.bytes
        self._told_in = self.engine.generation

    async def keep(self, name: str, events: Sequence[EncodedEvent]) -> Placed:
        """Have the engine keep what is to follow the log; see :meth:`Engine.append`."""
        log = self._log
        what = name, log.incarnation, log.last + 1, self._clock.unix_now(), events
        return await self.engine.append(*what)

    @property
    def is_wasteful(self) -> bool:
        """Whether the engine has much that left the log."""
        left = self._log.bytes
        return self._bytes > 2 * left + WASTED_BYTES or (not left and self._bytes > 0)

    def trim(self, session: KeptSession) -> None:
        """Have the engine let go of what left the log."""
        log = self._log
        oldest = log.segments[0].first if log.segments else log.last + 1
        self.engine.note(Trimmed(session, oldest, log.bytes))
        self._bytes = log.bytes

    def _events(self) -> Iterator[KeptEvent]:
        for segment in self._log.segments:
            for entry in map(segment.entry, segment.following(segment.head)):
                at = self._clock.unix_time(entry.appended_at) or 0.0
                event = EncodedEvent(block_of(entry.frame), entry.ttl, entry.key)
                yield KeptEvent(entry.seq, at, event)
