"""The hub: which sessions there are. It opens, finds, ends and expires them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from contextvars import Context
from math import inf

import structlog
import trio

from broadcasterd.access.quotas import Quotas
from broadcasterd.access.revocations import Revocations
from broadcasterd.broadcast.absent import AbsentSessions
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.durable_session import DurableSession
from broadcasterd.broadcast.interrupts import Interrupts
from broadcasterd.broadcast.making import make_session
from broadcasterd.broadcast.poller import Poller
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.shared_session import NOT_FILLED
from broadcasterd.broadcast.slices import for_each
from broadcasterd.broadcast.subscribers import Subscribers
from broadcasterd.config import Settings
from broadcasterd.core.reasons import EndReason
from broadcasterd.engine.memory import MemoryEngine
from broadcasterd.engine.port import Dropped, Ended, Engine, Revoked, is_shared
from broadcasterd.errors import RETRY_AFTER_S, Draining, NoSuchSession, Unavailable, UsedUp
from broadcasterd.figures.counts import Counts
from broadcasterd.memory.account import Account
from broadcasterd.memory.breaker import Thresholds
from broadcasterd.memory.holdings import STREAM_BYTES, Holdings
from broadcasterd.memory.policy import SESSION_BYTES
from broadcasterd.memory.pressure import Pressure

log = structlog.stdlib.get_logger(__name__)

CROWD_SHARE = 0.5
"""Share of the critical threshold that connections and streams may take: no more are accepted."""

MAX_FORGOTTEN = 100
"""Unused sessions that make room for one: they are looked for less often."""

UNUSED_INTERVAL_S = 1.0
"""Between two looks at all sessions for unused ones, where the last one found none."""


class Hub:
    """All sessions of one daemon, and what they share.

    Args:
        settings: those in force.
        clock: the daemon's.
        thresholds: the memory breaker's; ``None`` switches it off.
        counts: what the daemon counts.
        engine: keeps sessions and events beyond the process; by default nothing does.

    Attributes:
        sessions: those that are open, by name.
        absent: those that were closed for good, or are promised.
        subscribers: the streams that are open.
        interrupts: ends waits early.
        revocations: subjects whose older tokens are denied.
        quotas: what one client or subject has.
        pressure: the breaker.
        logs, bodies: bytes of all logs; of requests that are being read, and what is made of them.
        holdings: what connections, requests and answers take beside.

    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        thresholds: Thresholds | None = None,
        counts: Counts | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.settings = settings
        self.engine = engine or MemoryEngine()
        self.counts = counts or Counts()
        self.clock = clock or Clock()
        self.sessions: dict[str, Session] = {}
        self.absent = AbsentSessions(settings, self.clock)
        self.quotas = Quotas(settings, self.clock.now)
        self.subscribers = Subscribers(settings, self.quotas, self.clock, self.counts)
        self.interrupts = Interrupts(self.clock)
        self.revocations = Revocations()
        self.poller = Poller()
        self.logs = Account()
        self.bodies = Account()
        self.holdings = Holdings()
        self.pressure = Pressure(
            thresholds, counted=lambda: self.counted_bytes, clock=self.clock.now
        )
        self._revoked_elsewhere: set[str] = set()  # and not cut here yet
        self._look_for_unused_at = -inf
        self._nursery: trio.Nursery | None = None
        self._context = Context()

    @property
    def draining(self) -> bool:
        """Whether nothing more is taken."""
        return self.interrupts.draining

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the session tasks and the poller, until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await self.poller.run()
        finally:
            self.poller.close()  # after the sessions: they take their sockets back from it

    @property
    def history_bytes(self) -> int:
        """Bytes taken by sessions and their logs: all that policy can free of them."""
        return self.logs.bytes + len(self.sessions) * SESSION_BYTES

    @property
    def client_bytes(self) -> int:
        """Bytes taken by connections, by requests and their answers, and by streams."""
        return self.holdings.bytes + len(self.subscribers) * STREAM_BYTES

    @property
    def counted_bytes(self) -> int:
        """Bytes taken by all that is counted; cheap enough for every request."""
        return (
            self.logs.bytes
            + self.bodies.bytes
            + self.holdings.bytes
            + len(self.sessions) * SESSION_BYTES
            + len(self.subscribers) * STREAM_BYTES
        )

    @property
    def crowd_bytes(self) -> int:
        """Bytes that clients take beyond their share of memory; below 0 where there is room."""
        thresholds = self.pressure.thresholds
        if thresholds is None:
            return -1
        return self.client_bytes - int(thresholds.critical * CROWD_SHARE)

    @property
    def accounted_bytes(self) -> int:
        """All that is counted, and the writes that were cut short."""
        return self.counted_bytes + self.subscribers.pending_bytes

    def open(self, name: str, subject: str | None = None) -> Session:
        """Return the session of that name; make it if there is none, on ``subject``'s account.

        Raises:
            Unavailable: there are ``max_sessions`` already, or the daemon is draining.
            TooMany: as many are open that the subject has opened as it may.

        """
        session = self.sessions.get(name)
        if session is not None:
            return session
        if self.draining:
            raise Draining
        if self.is_full and not self.make_room():
            most = self.settings.sessions.max_sessions
            msg = f"there are {most} sessions (sessions.max_sessions)"
            raise Unavailable(msg, retry_after=RETRY_AFTER_S)
        if setting := self.quotas.used_up_by_sessions(subject):
            raise UsedUp(setting)
        incarnation = self.absent.leave(name)
        if self.engine.is_shared:
            incarnation = NOT_FILLED
        session = self.new_session(name, incarnation, subject)
        if isinstance(session, DurableSession):
            session.tell_engine()
        return self.put(session)

    def beginning_of(self, name: str) -> str:
        """Return the id from which to go on in a session that is not open yet.

        It promises the incarnation: whoever has it misses nothing that is published until then.
        """
        return f"{self.absent.promise(name)}-0"

    @property
    def is_full(self) -> bool:
        """Whether there are as many sessions as there may be."""
        return len(self.sessions) >= self.settings.sessions.max_sessions

    def make_room(self) -> bool:
        """Forget sessions that nobody has ever used, where there are any; return whether it helped.

        A request to listen opens a session, and costs nothing: else one client could have them all.
        """
        now = self.clock.now()
        if now < self._look_for_unused_at:
            return False
        unused = [session for session in self.sessions.values() if session.is_unused]
        for session in unused[:MAX_FORGOTTEN]:
            self.drop(session, EndReason.SESSION_EXPIRED)
        if not unused:
            self._look_for_unused_at = now + UNUSED_INTERVAL_S
        return bool(unused)

    def new_session(self, name: str, incarnation: str, subject: str | None) -> Session:
        """Return a session that is not open yet; ``incarnation`` names its log in its ids."""
        return make_session(self, name, incarnation, subject)

    def put(self, session: Session) -> Session:
        """Open a session and run its task; return it."""
        self.sessions[session.name] = session
        self.quotas.sessions_of_subject.add(session.subject)
        self.start(session)
        return session

    def start(self, session: Session) -> None:
        """Run a session's task; unless it is :meth:`put`, nobody finds it by its name."""
        assert self._nursery is not None  # noqa: S101 (run() was started first)
        # Not in the context of the request that happens to open it: the task would keep that
        # request, with all that its framework knows of it, for as long as the session lives.
        self._context.run(self._nursery.start_soon, self._contain, session)

    def find(self, name: str) -> Session:
        """Return the open session of that name.

        Raises:
            NoSuchSession: there is none.

        """
        try:
            return self.sessions[name]
        except KeyError:
            raise NoSuchSession(name) from None

    def drop(self, session: Session, reason: EndReason) -> None:
        """Let go of a session and end it: what it still owes its subscribers it delivers.

        The engine lets go of it, too, unless the next process is to have it.
        """
        if reason is not EndReason.DRAINING and self.sessions.get(session.name) is session:
            self.engine.note(Dropped(session.name))
        self._remove(session)
        session.end(reason)

    def _remove(self, session: Session) -> None:
        if self.sessions.get(session.name) is session:  # and not another one of its name
            del self.sessions[session.name]
            self.quotas.sessions_of_subject.remove(session.subject)

    # Sessions that were closed for good

    def was_ended(self, name: str) -> bool:
        """Whether that session was closed (not merely forgotten), and not opened since."""
        return self.absent.was_ended(name)

    def end(self, name: str) -> None:
        """Close a session for good: its subscribers are told not to come back.

        Raises:
            NoSuchSession: there is none of that name, and was none.

        """
        if name in self.sessions or not self.was_ended(name):
            self.drop(self.find(name), EndReason.SESSION_CLOSED)
        self.absent.note_ended(name, self.clock.now())
        self.engine.note(Ended(name, self.clock.unix_now()))
        for forgotten in self.absent.forget_surplus():
            self.engine.note(Ended(forgotten, None))

    async def close(self, name: str) -> None:
        """Close a session for good, wherever it is, and have that remembered.

        Raises:
            NoSuchSession: there is none of that name, and was none.
            EngineDown: it may come back.

        """
        if not is_shared(self.engine):
            self.end(name)
            await self.engine.settled()
        elif not await self.engine.end(name):
            raise NoSuchSession(name)
        elif name in self.sessions:
            self.drop(self.sessions[name], EndReason.SESSION_CLOSED)

    # Time

    async def reconfigure(self, thresholds: Thresholds | None) -> None:
        """Go on with the settings now in force: what is derived of them follows.

        Histories that are too long get shorter.
        """
        self.quotas.reconfigure()
        self.pressure.reconfigure(thresholds)
        await for_each(tuple(self.sessions.values()), Session.resize_log)

    async def heartbeat(self) -> None:
        """Ask the sessions that were silent for long enough for heartbeats."""
        now = self.clock.now()
        await for_each(tuple(self.sessions.values()), lambda session: session.heartbeat_if_due(now))

    async def sweep(self) -> None:
        """Forget events, sessions, names of closed sessions and promises past their time."""
        await for_each(tuple(self.sessions.values()), self._sweep_session)
        for name in self.absent.forget_old():
            self.engine.note(Ended(name, None))

    def _sweep_session(self, session: Session) -> None:
        now = self.clock.now()
        session.log.expire(now)
        if isinstance(session, DurableSession):
            session.trim_kept()
        if session.has_expired(now) and self.sessions.get(session.name) is session:
            self.counts.expired_sessions += 1
            self.drop(session, EndReason.SESSION_EXPIRED)

    async def end_expired(self) -> None:
        """End what grants hold open that have expired, also by a wall clock that was set."""
        if seconds := self.clock.was_set_by():
            log.warning("the wall clock was set", seconds=round(seconds, 3))
            self.interrupts.wall_was_set(seconds)
            await self.subscribers.wall_was_set(seconds)
        await self.subscribers.end_expired()

    async def revoke(self, subject: str) -> int:
        """Deny what a subject was issued until now, and end all that it holds open.

        Return how many streams those were here.

        Raises:
            EngineDown: it is in force here, and may be forgotten, or unknown elsewhere.

        """
        at = self.clock.unix_now()
        self.revocations.revoke(subject, at)
        self.engine.note(Revoked(subject, at))
        ended = await self._cut({subject})
        log.warning("subject revoked", subject=subject, streams=ended[subject])
        await self.engine.settled()
        return ended[subject]

    def take_revoked(self, subject: str, at: float) -> None:
        """Take notice that a subject was revoked, by whomever. It does not wait."""
        if not self.revocations.revoke(subject, at):
            return
        if not self._revoked_elsewhere:  # those that come together are looked for together
            assert self._nursery is not None  # noqa: S101 (run() was started first)
            self._nursery.start_soon(self._cut_revoked_elsewhere)
        self._revoked_elsewhere.add(subject)

    async def _cut_revoked_elsewhere(self) -> None:
        subjects, self._revoked_elsewhere = self._revoked_elsewhere, set()
        for subject, streams in (await self._cut(subjects)).items():
            log.warning("subject revoked", subject=subject, streams=streams)

    async def _cut(self, subjects: AbstractSet[str]) -> Counter[str]:
        self.interrupts.revoke(subjects)
        return await self.subscribers.revoke(subjects)

    async def drain(self, *, movable_stay: bool = False) -> None:
        """Take nothing more, and tell subscribers to come back; wait until those are gone.

        Those that can go on in another process may stay.
        """
        self.interrupts.drain()
        await self.subscribers.drain(movable_stay=movable_stay)

    async def _contain(self, session: Session) -> None:
        try:
            await session.run()
        except Exception:
            self.counts.failed_sessions += 1
            log.exception("a session failed", session=session.name)
            if self.sessions.get(session.name) is session:
                self.engine.note(Dropped(session.name))
        finally:
            self._remove(session)
