"""A session whose events an engine keeps: it logs and broadcasts what the engine has, and no other.

While it waits for the engine, more comes into its inbox; all of that goes to the engine together.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf
from time import perf_counter

from typing_extensions import override

from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.keeping import Keeping
from broadcasterd.broadcast.publication import Publication, Receipt
from broadcasterd.broadcast.session import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    Fresh,
    Heartbeat,
    Message,
    Session,
)
from broadcasterd.broadcast.staging import Staging
from broadcasterd.broadcast.subscribers import Subscribers
from broadcasterd.config import Settings
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.engine.port import Arrived, Engine, KeptSession, Placed
from broadcasterd.errors import Problem


class DurableSession(Session):
    """A session, as an engine keeps it.

    Args:
        name: as in the URL.
        log: its events, or what was retained of them; nobody else appends to it.
        registry: told of every stream that opens and ends.
        settings: those in force.
        clock: the daemon's.
        subject: the one on whose account it was opened.
        engine: keeps its events.

    Attributes:
        keeping: what the engine knows of it.

    """

    def __init__(
        self,
        name: str,
        log: ReplayLog,
        registry: Subscribers,
        *,
        settings: Settings,
        clock: Clock,
        subject: str | None = None,
        engine: Engine,
    ) -> None:
        super().__init__(name, log, registry, settings=settings, clock=clock, subject=subject)
        self.keeping = Keeping(engine, log, clock)
        self._is_staging = False
        self._is_waiting = False  # for the engine

    @property
    @override
    def is_unused(self) -> bool:
        return super().is_unused and not self._is_staging

    @override
    def heartbeat_if_due(self, now: float) -> None:
        """Ask for heartbeats; have them at once where the task waits for a disk that hangs."""
        if not self._is_waiting:
            super().heartbeat_if_due(now)
        elif now - self._written_at >= self.limits.heartbeat_interval:
            self._written_at = now
            for subscriber in tuple(self.subscribers):
                self._beat(subscriber)

    async def arrive(self, arrived: Arrived) -> None:
        """Take events from a shared engine, as soon as there is room for them.

        Raises:
            trio.ClosedResourceError: the session is ending.

        """
        await self._inbox.send(arrived)

    # Telling the engine

    def kept(self) -> KeptSession:
        """Return what an engine keeps of it beside its events."""
        log, floor_at = self.log, self.log.floor_at
        return KeptSession(
            self.name,
            log.incarnation,
            self._clock.unix_time(self.opened_at) or 0.0,
            self.subject,
            log.floor,
            None if isinf(floor_at) else self._clock.unix_time(floor_at),
            log.last,
        )

    def tell_engine(self) -> None:
        """Tell the engine of all that there is, unless it knows."""
        if not self.keeping.is_told:
            self.keeping.tell(self.kept())

    def trim_kept(self) -> None:
        """Have the engine let go of what left the log, where that has become much."""
        if self.keeping.is_wasteful:
            self.keeping.trim(self.kept())

    # Publishing

    @override
    async def _handle(self, message: Message) -> None:
        staging = Staging(self.log)
        self._is_staging = True
        following: Message | None = message
        try:
            while following is not None:
                match following:
                    case Publication() if self.keeping.engine.is_shared:
                        await self._hand_over(following)
                    case Publication():
                        self.active_at = self.now()
                        self.log.expire(self.active_at)
                        staging.add(following)
                    case Arrived():
                        await self._take(following)
                    case Heartbeat():
                        await self._heartbeat()
                following = None if staging.is_full else self._next()
            if staging:
                await self._keep(staging)
        except Problem as problem:
            gone = self.ending is not None
            self.keeping.engine.health.lost += staging.refuse(self._refusal() if gone else problem)
        finally:
            self._is_staging = False
            if not staging.is_settled:  # it may have been cut short
                staging.refuse(self._refusal())

    async def _keep(self, staging: Staging) -> None:
        """Have the engine keep what is staged; then log it, settle it and broadcast it.

        Raises:
            EngineDown: it is not kept.
            Unavailable: the log was handed over meanwhile, without it.

        """
        self._check_stays()
        if staging.events:
            self.tell_engine()
            if self._settings.engine.durability == "relaxed" and not self.keeping.engine.health.why:
                staging.settle()
            await self._wait_for_engine(staging.events)
            self._check_stays()
            self.keeping.count_as_told(staging.size)
        fresh = Fresh()
        for publication, events, receipt in staging:
            fresh.offered = fresh.offered if fresh.entries else self.log.last
            for event in events:
                if self._put(self.log.last + 1, event, fresh):
                    await self._spread(fresh)
            self.counts.duplicates += receipt.duplicates
            if not publication.settled.is_set():
                publication.settle(receipt)
        await self._broadcast(fresh)
        self.trim_kept()

    def _put(self, seq: int, event: EncodedEvent, fresh: Fresh) -> bool:
        """Log an event that the engine has; return whether there is enough to broadcast."""
        now = self.active_at = self.published_at = self.now()
        entry = self.log.put(seq, event.block, now=now, ttl=event.ttl, key=event.key)
        if not fresh.entries:
            fresh.since = perf_counter()
        fresh.entries.append(entry)
        fresh.size += len(entry.frame)
        return fresh.size >= MAX_BATCH_BYTES or len(fresh.entries) >= MAX_BATCH_EVENTS

    async def _hand_over(self, publication: Publication) -> None:
        """Have a shared engine place a publication; its events come back as :class:`Arrived`."""
        outcome: Receipt | Problem = self._refusal()
        try:
            for event in publication.events:
                self.log.check_fits(event.block, ttl=event.ttl, key=event.key)
            outcome = Receipt(0, 0, None, None)
            if publication.events:
                placed = await self._wait_for_engine(publication.events)
                outcome = Receipt(
                    len(placed.seqs) - len(placed.duplicates),
                    len(placed.duplicates),
                    f"{placed.incarnation}-{placed.seqs[0]}",
                    f"{placed.incarnation}-{placed.seqs[-1]}",
                )
                self.counts.duplicates += outcome.duplicates
        except Problem as problem:
            outcome = problem
        finally:
            publication.settle(outcome)

    async def _wait_for_engine(self, events: Sequence[EncodedEvent]) -> Placed:
        self._is_waiting = True
        try:
            return await self.keeping.keep(self.name, events)
        finally:
            self._is_waiting = False

    async def _take(self, arrived: Arrived) -> None:
        """Log and broadcast what came from a shared engine; what is there already is left out."""
        if arrived.incarnation != self.log.incarnation:
            return
        fresh = Fresh()
        fresh.offered = self.log.last
        for kept in arrived.events:
            if kept.seq > self.log.last and self._put(kept.seq, kept.event, fresh):
                await self._spread(fresh)
        await self._broadcast(fresh)
