"""Figures as a stream: what the page at ``/`` shows, on a session of the daemon's own.

Each second one frame is made for all who watch, and none where nobody does. The frame goes the way
of any event: so the page also shows that this way works. A newcomer first gets the last hour.

The session is in no list: it has no history to give up, cannot be published to, and is not handed
over; those who watch come back to the next process by themselves.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import trio

from broadcasterd.access.grants import Grant
from broadcasterd.api import health
from broadcasterd.api.points import EVERY_S, LastHour, Point, Points
from broadcasterd.api.request import Head
from broadcasterd.api.room import TurnedAway, no_room, turn_away
from broadcasterd.api.stats import Stats, document
from broadcasterd.api.subscribe import Admission, admit_to
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Position, ReplayLog
from broadcasterd.errors import Problem
from broadcasterd.figures.counts import Cause
from broadcasterd.memory.breaker import Transition

PATH = "/v1/stats/events"
"""Also the session's name in records: no other can have it."""

FRAME_S = 1.0
"""Between two frames."""

MAX_WATCHERS = 100
"""People who look at pages are few; each newcomer is sent some 150 KB."""

KEPT_FRAMES, KEPT_BYTES = 10, 256 * 1024
"""What waits for a reader who is slow: beyond it, the stream ends, and the page comes back."""

Report = Mapping[str, object]


class Live:
    """The stream of figures.

    Args:
        hub: has the streams.
        stats: returns the figures of this moment.
        quality: returns the quality reports that there are.

    """

    def __init__(
        self,
        hub: Hub,
        stats: Callable[[], Stats],
        quality: Callable[[], Sequence[Report]] = lambda: (),
    ) -> None:
        self._hub = hub
        self._stats = stats
        self._quality = quality
        self._hour = LastHour()
        self._session: Session | None = None
        self._kept: Points | None = None  # looks for the last hour
        self._shown: Points | None = None  # looks for those who watch
        hub.pressure.watchers.append(self._note_transition)

    async def run(self) -> None:
        """Keep the last hour, and send frames to those who watch, until cancelled."""
        self._kept = Points(self._stats(), self._hub.clock.now())
        while True:
            await trio.sleep(FRAME_S)
            await self._look(self._kept)

    async def _look(self, kept: Points) -> None:
        now, session, shown = self._hub.clock.now(), self._session, self._shown
        is_kept = now - kept.since >= EVERY_S - FRAME_S / 2
        is_watched = session is not None and session.subscribers
        # A newcomer who is the only one waits a little longer: a rate over a moment tells nothing.
        is_shown = is_watched and shown is not None and now - shown.since >= FRAME_S / 2
        if not is_kept and not is_shown:
            return
        stats, unix_time = self._stats(), self._hub.clock.unix_now()
        if is_kept:
            self._hour.add(kept.take(stats, now, unix_time=unix_time))
        if is_shown and session is not None and shown is not None:
            await self._send(session, stats, shown.take(stats, now, unix_time=unix_time))

    def admit(self, head: Head, grant: Grant) -> Admission | TurnedAway:
        """Decide the response to a request to watch, which ``grant`` covers.

        The breaker turns nobody away who comes to see why it is open.

        Raises:
            Unavailable: a bad moment, and the request asked for ``overload=status``.
            TooMany: the client or the subject has its share, and the request asked for that status.

        """
        hub = self._hub
        if hub.draining:
            return turn_away(head, hub, no_room(EndReason.DRAINING, Cause.DRAINING))
        if refused := hub.quotas.used_up_by_streams(head.peer, grant.subject):
            return turn_away(head, hub, no_room(EndReason.MEMORY, setting=refused))
        session = self._open()
        if hub.subscribers.are_full or len(session.subscribers) >= MAX_WATCHERS:
            return turn_away(head, hub, no_room(EndReason.MEMORY))
        stats = self._stats()
        if not session.subscribers:
            self._shown = Points(stats, hub.clock.now())
        hour = self._hour.encode(started_at=stats.started_at, quality=self._quality())
        return admit_to(
            session, Position(session.log.last), grant, hub, opening=_event("history", hour)
        )

    def _open(self) -> Session:
        """Return the session; another one, where it has failed."""
        if self._session is None or self._session.ending is not None:
            hub = self._hub
            log = ReplayLog(
                incarnation=secrets.token_hex(4),
                max_events=KEPT_FRAMES,
                max_bytes=KEPT_BYTES,
                max_age=KEPT_FRAMES * FRAME_S,
            )
            self._session = Session(
                PATH,
                log,
                hub.subscribers,
                settings=hub.settings,
                clock=hub.clock,
                can_move=False,
            )
            hub.start(self._session)
        return self._session

    async def _send(self, session: Session, stats: Stats, point: Point) -> None:
        frame = {
            "point": point,
            "health": health.document(stats.vitals),
            "stats": document(stats),
        }
        with suppress(Problem):  # it has failed, which has a record: another one is opened
            await session.publish([EncodedEvent(_event("stats", msgspec.json.encode(frame)))])

    def _note_transition(self, transition: Transition) -> None:
        for points in (self._kept, self._shown):
            if points is not None:
                points.note(transition.before)
                points.note(transition.after)


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
