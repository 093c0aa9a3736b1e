"""Taking up what an engine has kept: the sessions of a process that is no more, into a new hub."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import structlog

from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.wire import block_of, encode_frame
from broadcasterd.engine.port import Dropped, Ended, KeptEvent, KeptSession, Opened, Revoked

log = structlog.stdlib.get_logger(__name__)


async def take_up(hub: Hub) -> None:
    """Put into a hub what its engine has kept, before anybody is served.

    What a handover brought is newer, and wins: where the engine has something else of a session, it
    is told all of it anew.
    """
    taking = _Taking(hub)
    await hub.engine.load(taking)
    taking.finish()


class _Taking:
    """Takes sessions and events into a hub, as an engine gives them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._handed_over = {*hub.sessions}
        self._agreed: set[str] = set()
        self._loaded: dict[str, Session] = {}
        self._handed_over_notes = len(hub.ended_names()), len(hub.revocations)
        self.events = 0

    def take_session(self, session: KeptSession) -> bool:
        """Open a session as it was, unless it is here or there is no room for it."""
        hub, name = self._hub, session.name
        if name in self._handed_over:
            log_here = hub.sessions[name].log
            if (log_here.incarnation, log_here.last) == (session.incarnation, session.last):
                self._agreed.add(name)
            return False
        if hub.is_full:
            hub.engine.note(Dropped(name))
            return False
        clock = hub.clock
        here = hub.new_session(name, session.incarnation, session.subject)
        fits = not self._is_short_of_memory()
        floor, floor_at = session.floor, -inf
        if session.floor_at is not None:
            floor_at = clock.moment(session.floor_at)
        if not fits:  # as lost as if memory had been short before
            floor, floor_at = session.last, clock.now()
        here.log.go_on_from(floor=floor, last=session.last, floor_at=floor_at)
        here.opened_at = min(clock.now(), clock.moment(session.opened_at))
        self._loaded[name] = hub.put(here)
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
            session.note_kept(event)
            if kept.seq > log_here.floor and (event.ttl is None or at + event.ttl > now):
                frame = encode_frame(log_here.id_of(kept.seq), event.block)
                log_here.restore(kept.seq, frame, appended_at=at, ttl=event.ttl, key=event.key)
                self.events += 1
        log_here.expire(now)

    def take_note(self, note: Ended | Revoked) -> None:
        """Remember what was remembered."""
        hub = self._hub
        match note:
            case Ended(name, at) if at is not None and not hub.was_ended(name):
                hub.note_ended(name, min(hub.clock.now(), hub.clock.moment(at)))
            case Revoked(subject, at):
                hub.revocations.revoke(subject, at)

    def forget(self) -> None:
        """Forget all that was taken: it was damaged."""
        for session in self._loaded.values():
            self._hub.drop(session, EndReason.DRAINING)
        self._loaded.clear()
        self._agreed.clear()
        self.events = 0

    def finish(self) -> None:
        """Tell the engine what it does not have of what is here."""
        hub = self._hub
        if not hub.engine.keeps:
            return
        for name in self._handed_over - self._agreed:
            session = hub.sessions[name]
            hub.engine.note(Opened(session.kept(), _events_of(session, hub)))
        unix_time = hub.clock.unix_time
        for name, at in hub.ended_names():
            hub.engine.note(Ended(name, unix_time(at)))
        for subject, revoked_at in hub.revocations:
            hub.engine.note(Revoked(subject, revoked_at))
        log.info(
            "the engine is loaded",
            engine=hub.engine.health.kind,
            sessions=len(self._loaded),
            events=self.events,
            handed_over=len(self._handed_over),
            rewritten=len(self._handed_over - self._agreed),
        )

    def _is_short_of_memory(self) -> bool:
        thresholds = self._hub.pressure.thresholds
        return thresholds is not None and self._hub.counted_bytes > thresholds.warning


def _events_of(session: Session, hub: Hub) -> list[KeptEvent]:
    unix_time = hub.clock.unix_time
    return [
        KeptEvent(
            entry.seq,
            unix_time(entry.appended_at) or 0.0,
            EncodedEvent(block_of(entry.frame), entry.ttl, entry.key),
        )
        for segment in session.log.segments
        for entry in map(segment.entry, segment.following(segment.head))
    ]
