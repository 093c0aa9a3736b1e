"""Taking up what an engine has kept: the sessions of a process that is no more, into a new hub."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from math import inf

import structlog
import trio

from broadcasterd.broadcast.durable_session import DurableSession
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.telling import Telling, tell_ended, tell_revoked
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.wire import encode_frame
from broadcasterd.engine.port import (
    Dropped,
    Ended,
    EngineDown,
    HandedOver,
    KeptEvent,
    KeptSession,
    Revoked,
)
from broadcasterd.errors import Problem

log = structlog.stdlib.get_logger(__name__)


async def take_up(hub: Hub) -> None:
    """Put into a hub what its engine has kept, before anybody is served.

    Sessions that were handed over to a process that this one does not know of begin another
    incarnation, with their events: which ids that process gave out is not known.

    What a handover brought is newer, and wins: where the engine has something else of a session, it
    forgets that, and is told of the session anew.
    """
    if not hub.engine.keeps:
        return
    taking = _Taking(hub)
    await hub.engine.load(taking)
    if hub.engine.is_shared:
        await _catch_up(hub)
    else:
        taking.report()
    with suppress(EngineDown):  # then it is owed
        await taking.settle()


async def _catch_up(hub: Hub) -> None:
    """Have the sessions that a handover brought follow the engine."""

    async def rejoin(session: Session) -> None:
        with suppress(Problem):
            await session.ready()  # or it is ended; or it catches up once the engine is back

    async with trio.open_nursery() as nursery:
        for session in [*hub.sessions.values()]:
            if session.log.incarnation:
                nursery.start_soon(rejoin, session)


class _Taking:
    """Takes sessions and events into a hub, as an engine gives them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._handed_over = {*hub.sessions}
        self._loaded: dict[str, DurableSession] = {}
        self._moved_on = False
        self._revoked_here = dict(hub.revocations)  # and the engine does not know it
        self._ended: set[str] = set()
        self.events = 0

    def take_session(self, session: KeptSession) -> bool:
        """Open a session as it was, unless it is here or there is no room for it."""
        hub, name = self._hub, session.name
        if name in self._handed_over:
            here = hub.sessions[name]
            assert isinstance(here, DurableSession)  # noqa: S101 (its engine keeps)
            if (here.log.incarnation, here.log.last) == (session.incarnation, session.last):
                here.keeping.count_as_told(here.log.bytes)
            else:
                hub.engine.note(Dropped(name))  # before it gives a number out again
            return False
        if hub.is_full:
            hub.engine.note(Dropped(name))
            return False
        clock = hub.clock
        incarnation = secrets.token_hex(4) if self._moved_on else session.incarnation
        here = hub.new_session(name, incarnation, session.subject)
        assert isinstance(here, DurableSession)  # noqa: S101 (its engine keeps)
        fits = not self._is_short_of_memory()
        floor, floor_at = session.floor, -inf
        if session.floor_at is not None:
            floor_at = clock.moment(session.floor_at)
        if not fits:  # as lost as if memory had been short before
            floor, floor_at = session.last, clock.now()
        here.log.go_on_from(floor=floor, last=session.last, floor_at=floor_at)
        here.opened_at = here.published_at = min(clock.now(), clock.moment(session.opened_at))
        if not self._moved_on:
            here.keeping.count_as_told()
        hub.put(here)
        self._loaded[name] = here
        return fits

    def take_events(self, name: str, events: Sequence[KeptEvent]) -> None:
        """Put events into a session's log, with their numbers and their ages."""
        session, now = self._loaded[name], self._hub.clock.now()
        moment = self._hub.clock.moment
        log_here = session.log
        for kept in events:
            # No event comes before an older one, however the wall clock was set in between.
            at = session.published_at = max(session.published_at, min(now, moment(kept.at)))
            event = kept.event
            if not self._moved_on:
                session.keeping.count_as_told(len(event.block))
            if kept.seq > log_here.floor and (event.ttl is None or at + event.ttl > now):
                frame = encode_frame(log_here.id_of(kept.seq), event.block)
                log_here.restore(kept.seq, frame, appended_at=at, ttl=event.ttl, key=event.key)
                self.events += 1
        log_here.expire(now)

    def take_note(self, note: Ended | Revoked | HandedOver) -> None:
        """Remember what was remembered."""
        hub = self._hub
        match note:
            case HandedOver():
                self._moved_on = True
            case Ended(name, at):
                self._ended.add(name)
                if at is not None and not hub.was_ended(name) and name not in hub.sessions:
                    hub.absent.note_ended(name, min(hub.clock.now(), hub.clock.moment(at)))
            case Revoked(subject, at):
                if at >= self._revoked_here.get(subject, inf):
                    del self._revoked_here[subject]
                hub.take_revoked(subject, at)

    def forget(self) -> None:
        """Forget all that was taken: it was damaged."""
        for session in self._loaded.values():
            self._hub.drop(session, EndReason.DRAINING)
        self._loaded.clear()
        self._moved_on = False
        self._ended.clear()
        self._revoked_here = dict(self._hub.revocations)
        self.events = 0

    def report(self) -> None:
        """Tell of it."""
        log.info(
            "the engine is loaded",
            engine=self._hub.engine.health.kind,
            sessions=len(self._loaded),
            events=self.events,
            handed_over=len(self._handed_over),
        )

    async def settle(self) -> None:
        """Have the engine know whose the sessions are now, before anybody is given an id.

        Raises:
            EngineDown: it does not, yet.

        """
        engine = self._hub.engine
        telling = Telling(self._hub)
        while self._moved_on and not telling.go_on():
            await engine.settled()
        tell_ended(self._hub, self._ended)
        tell_revoked(self._hub, self._revoked_here.items())
        engine.note(HandedOver(is_so=False))
        await engine.settled()

    def _is_short_of_memory(self) -> bool:
        thresholds = self._hub.pressure.thresholds
        return thresholds is not None and self._hub.counted_bytes > thresholds.warning
