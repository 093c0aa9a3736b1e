"""A session whose events an engine keeps: it logs and broadcasts what the engine has, and no other.

While it waits for the engine, more comes into its inbox; all of that goes to the engine together.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

from typing_extensions import override

from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.fresh import Fresh
from broadcasterd.broadcast.inbox import Message
from broadcasterd.broadcast.keeping import Keeping
from broadcasterd.broadcast.publication import Publication
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.staging import Staging
from broadcasterd.broadcast.subscribers import Subscribers
from broadcasterd.config import Settings
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.engine.port import Engine, KeptSession
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
    def _does_at_once(self, event: EncodedEvent) -> bool:
        return False  # the engine is waited for

    @override
    async def _handle(self, message: Message) -> None:
        staging = Staging(self.log)
        self._is_staging = True
        now = self.now()
        self.log.expire(now)
        following: Message | None = message
        try:
            while following is not None:
                match following:
                    case Publication():
                        self.active_at = now
                        staging.add(following)
                    case _:
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
        fresh = Fresh(self.log.last)
        now = self.now()  # for all of them: they came into the log together
        is_told = staging.is_settled
        for publication, events, receipt in staging:
            fresh.offered = fresh.offered if fresh.entries else self.log.last
            for event in events:
                if fresh.add(self._log(self.log.last + 1, event, now)):
                    await self._spread(fresh)
            self.counts.duplicates += receipt.duplicates
            if not is_told:
                publication.settle(receipt)
        await self._broadcast(fresh)
        self.trim_kept()

    async def _wait_for_engine(self, events: Sequence[EncodedEvent]) -> None:
        self._is_waiting = True
        try:
            await self.keeping.keep(self.name, events)
        finally:
            self._is_waiting = False
