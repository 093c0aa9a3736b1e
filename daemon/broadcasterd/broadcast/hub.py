"""The hub: which sessions and streams there are. It opens, finds, ends and expires them."""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from itertools import islice
from math import inf

import structlog
import trio

from broadcasterd.broadcast.poller import Poller
from broadcasterd.broadcast.pressure import Pressure
from broadcasterd.broadcast.session import FAN_OUT_SLICE, Clock, Session
from broadcasterd.broadcast.shares import Shares
from broadcasterd.broadcast.subscriber import Subscriber
from broadcasterd.config import Limits, Sessions
from broadcasterd.core.account import Account
from broadcasterd.core.breaker import MIB, State, Thresholds, Transition
from broadcasterd.core.grants import Grant
from broadcasterd.core.handover import SessionLeft
from broadcasterd.core.policy import (
    SESSION_BYTES,
    Action,
    CutLaggards,
    ExpireEarly,
    Forget,
    SessionVitals,
    Trim,
)
from broadcasterd.errors import NoSuchSession, TooMany, Unavailable
from broadcasterd.reasons import EndReason

log = structlog.stdlib.get_logger(__name__)

RETRY_AFTER_S = 5
"""What a publisher is told who comes while the hub is full or draining, in seconds."""

PRESSURE_RETRY_AFTER_S = 6
"""The breaker does not close within less."""

STREAM_BYTES = 4 * 1024
"""What an idle stream takes: a socket and a cursor, 2 KB (measured), and as much in the kernel."""


class Hub:
    """All sessions of one daemon.

    Args:
        limits: the ``[sessions]`` settings.
        shares: the ``[limits]`` settings: what one client or subject may have; the defaults.
        clock: seconds on a monotonic clock; Trio's, so that tests can move it.
        wall_clock: Unix time in seconds; only to understand times that clients and tokens name.
        thresholds: the memory breaker's; ``None`` switches it off.
        rss: the bytes of memory resident, for the breaker's records.

    """

    def __init__(
        self,
        limits: Sessions,
        *,
        shares: Limits | None = None,
        clock: Clock = trio.current_time,
        wall_clock: Clock = time.time,
        thresholds: Thresholds | None = None,
        rss: Callable[[], int] = lambda: 0,
    ) -> None:
        self.limits = limits
        self._rss = rss
        self.shares = Shares(shares or Limits(), clock)
        self.clock = clock
        self.wall_clock = wall_clock
        self.sessions: dict[str, Session] = {}
        self.streams: dict[str, Subscriber] = {}
        self.counters: Counter[str] = Counter()
        self.ended_by_reason: Counter[EndReason] = Counter()
        self.draining = False
        self.poller = Poller()
        self.logs = Account()
        self.bodies = Account()  # requests that are being read, and what is made of them
        self.pressure = Pressure(
            thresholds,
            counted=lambda: self.counted_bytes,
            clock=clock,
            on_transition=self._record_transition,
        )
        self._ended: dict[str, float] = {}  # names of closed sessions, oldest first
        self._to_drain: set[str] = set()
        self._drained = trio.Event()  # set when none of these streams is left
        self._until_drain: set[trio.CancelScope] = set()
        self._until_short: set[trio.CancelScope] = set()
        self._until_expired: dict[trio.CancelScope, str | None] = {}  # and whose grant it is
        self._nursery: trio.Nursery | None = None
        self._context = Context()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the session tasks and the poller, until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await self.poller.run()
        finally:
            self.poller.close()  # after the sessions: they take their sockets back from it

    @property
    def counted_bytes(self) -> int:
        """Bytes taken by logs, bodies, sessions and streams; cheap enough for every request."""
        return (
            self.logs.bytes
            + self.bodies.bytes
            + len(self.sessions) * SESSION_BYTES
            + len(self.streams) * STREAM_BYTES
        )

    @property
    def accounted_bytes(self) -> int:
        """All that is counted, and the writes that were cut short."""
        return self.counted_bytes + sum(s.pending_bytes for s in self.streams.values())

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
            raise draining()
        if len(self.sessions) >= self.limits.max_sessions:
            msg = f"there are {self.limits.max_sessions} sessions (sessions.max_sessions)"
            raise Unavailable(msg, retry_after=RETRY_AFTER_S)
        if setting := self.shares.used_up_by_sessions(subject):
            raise used_up(setting)
        self._ended.pop(name, None)
        return self._open(name, secrets.token_hex(4), subject)

    def _open(self, name: str, incarnation: str, subject: str | None) -> Session:
        assert self._nursery is not None  # noqa: S101 (run() was started first)
        session = Session(self, name, incarnation=incarnation, limits=self.limits, subject=subject)
        self.sessions[name] = session
        self.shares.sessions_of_subject.add(subject)
        # Not in the context of the request that happens to open it: the task would keep that
        # request, with all that its framework knows of it, for as long as the session lives.
        self._context.run(self._nursery.start_soon, self._contain, session)
        return session

    def find(self, name: str) -> Session:
        """Return the open session of that name.

        Raises:
            NoSuchSession: there is none.

        """
        try:
            return self.sessions[name]
        except KeyError:
            raise NoSuchSession(name) from None

    def was_ended(self, name: str) -> bool:
        """Whether that session was closed (not merely forgotten), and not opened since."""
        return name in self._ended

    def end(self, name: str) -> None:
        """Close a session for good: its subscribers are told not to come back.

        Raises:
            NoSuchSession: there is none of that name, and was none.

        """
        if name in self.sessions or name not in self._ended:
            session = self.find(name)
            self._drop(session)
            session.end(EndReason.SESSION_CLOSED)
        self._ended.pop(name, None)
        self._ended[name] = self.clock()
        while len(self._ended) > self.limits.max_sessions:
            del self._ended[next(iter(self._ended))]

    def _drop(self, session: Session) -> None:
        """Let go of a session, if it is still the one of its name."""
        if self.sessions.get(session.name) is session:
            del self.sessions[session.name]
            self.shares.sessions_of_subject.remove(session.subject)

    def stream_opened(self, subscriber: Subscriber) -> None:
        """Count a stream. Only sessions call this."""
        self.streams[subscriber.stream_id] = subscriber
        self.shares.stream_opened(subscriber)

    def stream_ended(self, subscriber: Subscriber, reason: EndReason) -> None:
        """Count and record the end of a stream. Only sessions call this."""
        self.stream_left(subscriber)
        self.ended_by_reason[reason] += 1
        log.info(
            "stream ended",
            session=subscriber.session.name,
            stream=subscriber.stream_id,
            peer=subscriber.peer,
            reason=reason.value,
            duration_s=round(self.clock() - subscriber.opened_at, 3),
            last_id=subscriber.session.log.id_of(subscriber.cursor),
            sent_events=subscriber.sent_events,
            sent_bytes=subscriber.sent_bytes,
        )

    def stream_left(self, subscriber: Subscriber) -> None:
        """Count a stream no more, without a word. Only sessions call this."""
        if self.streams.pop(subscriber.stream_id, None) is not None:
            self.shares.stream_ended(subscriber)
        self._to_drain.discard(subscriber.stream_id)
        if not self._to_drain:
            self._drained.set()

    def jittered_retry_ms(self) -> int:
        """Return a reconnection time that spreads those who come back together."""
        return self.limits.retry_ms + random.randrange(self.limits.retry_ms + 1)  # noqa: S311

    async def reconfigure(
        self, limits: Sessions, thresholds: Thresholds | None, *, shares: Limits | None = None
    ) -> None:
        """Go on with other settings. Histories that are too long for them get shorter."""
        self.limits = limits
        if shares is not None:
            self.shares.reconfigure(shares)
        self.pressure.reconfigure(thresholds)
        for some in self._slices():
            for session in some:
                session.reconfigure(limits)
            await trio.lowlevel.checkpoint()

    # What the supervisor does

    async def beat(self) -> None:
        """Ask the sessions that were silent for long enough for heartbeats."""
        for some in self._slices():
            for session in some:
                session.beat_if_due(self.clock())
            await trio.lowlevel.checkpoint()

    async def sweep(self) -> None:
        """Forget events, sessions and names of closed sessions that are past their time."""
        for some in self._slices():
            for session in some:
                self._sweep_session(session, self.clock())
            await trio.lowlevel.checkpoint()
        now = self.clock()
        while self._ended:
            name, ended_at = next(iter(self._ended.items()))
            if now - ended_at < self.limits.session_ttl:
                break
            del self._ended[name]

    # Grants

    def expiry_of(self, grant: Grant) -> float:
        """Return when a grant expires, on the hub's clock: a wall clock may be set back."""
        if grant.expires_at is None:
            return inf
        return self.clock() + grant.expires_at - self.wall_clock()

    async def end_expired(self) -> None:
        """End the streams whose grants have expired."""
        now = self.clock()
        for count, stream in enumerate(tuple(self.streams.values()), start=1):
            if stream.expires_at <= now:
                stream.cut(EndReason.TOKEN_EXPIRED)
            if count % FAN_OUT_SLICE == 0:
                await trio.lowlevel.checkpoint()

    async def revoke(self, subject: str) -> int:
        """End all that a subject's grants hold open now; return how many streams those were."""
        for scope, whose in tuple(self._until_expired.items()):
            if whose == subject:
                scope.cancel()
        streams = [stream for stream in self.streams.values() if stream.subject == subject]
        log.warning("subject revoked", subject=subject, streams=len(streams))
        for count, stream in enumerate(streams, start=1):
            stream.cut(EndReason.TOKEN_EXPIRED)
            if count % FAN_OUT_SLICE == 0:
                await trio.lowlevel.checkpoint()
        return len(streams)

    @contextmanager
    def until_expired(self, grant: Grant) -> Iterator[trio.CancelScope]:
        """Cancel what is inside when a grant expires, or its subject is revoked."""
        with trio.CancelScope(deadline=self.expiry_of(grant)) as scope:
            self._until_expired[scope] = grant.subject
            try:
                yield scope
            finally:
                del self._until_expired[scope]

    # Memory pressure

    def vitals(self) -> list[SessionVitals]:
        """Return what the policy has to know of each session."""
        now = self.clock()
        return [
            SessionVitals(s.name, s.log.bytes, len(s.subscribers), now - s.published_at)
            for s in self.sessions.values()
        ]

    def relieve(self, actions: list[Action]) -> None:
        """Do what the policy decided, all in one step."""
        for action in actions:
            match action:
                case Trim(name, to_bytes):
                    self._trimmed(self.sessions[name].log.trim(to_bytes))
                case Forget(name):
                    session = self.sessions[name]
                    self._drop(session)
                    self._trimmed(session.log.trim(0))
                    session.end(EndReason.MEMORY)
                    self.counters["sessions_shed"] += 1
                case ExpireEarly(share):
                    now = self.clock()
                    for session in self.sessions.values():
                        self._trimmed(session.log.expire(now, share=share))
                case CutLaggards():
                    for stream in tuple(self.streams.values()):
                        if stream.is_behind:
                            stream.cut(EndReason.MEMORY, retry_ms=self.jittered_retry_ms())

    def _trimmed(self, events: int) -> None:
        self.counters["events_shed"] += events

    def _record_transition(self, transition: Transition) -> None:
        self.counters[f"breaker_{transition.after.value}"] += 1
        if transition.after is State.OPEN:
            for scope in tuple(self._until_short):
                scope.cancel()
        log.warning(
            "memory breaker",
            before=transition.before.value,
            after=transition.after.value,
            rss_mb=round(self._rss() / MIB, 1),
            used_mb=round(transition.used / MIB, 1),
            counted_mb=round(self.counted_bytes / MIB, 1),
            sessions=len(self.sessions),
            streams=len(self.streams),
        )

    # Draining

    async def drain(self, *, movable_stay: bool = False) -> None:
        """Take nothing more, and tell subscribers to come back; wait until those are gone.

        Those that can go on in another process may stay.
        """
        self.draining = True
        for scope in tuple(self._until_drain):
            scope.cancel()
        self._to_drain = {
            stream.stream_id
            for stream in self.streams.values()
            if not (movable_stay and stream.can_move)
        }
        for count, stream_id in enumerate(tuple(self._to_drain), start=1):
            if (stream := self.streams.get(stream_id)) is not None:
                stream.finish(EndReason.DRAINING, retry_ms=self.jittered_retry_ms())
            if count % FAN_OUT_SLICE == 0:
                await trio.lowlevel.checkpoint()
        while self._to_drain:
            self._drained = trio.Event()
            await self._drained.wait()

    # Handing over

    def leave(self, session: Session) -> None:
        """Let go of a session that goes on in another process; who still listens is told so."""
        self._drop(session)
        session.end(EndReason.DRAINING)

    def take_up(self, left: SessionLeft, *, now: float) -> Session:
        """Open a session that another process left, empty: its events are to follow.

        ``now`` is the moment, on this hub's clock, that its ages are of.
        """
        session = self._open(left.name, left.incarnation, left.subject)
        session.log.go_on_from(floor=left.floor, last=left.last)
        session.opened_at = now - left.opened_s
        session.active_at = now - left.active_s
        session.published_at = now - left.published_s
        return session

    def ended_names(self) -> Iterator[tuple[str, float]]:
        """Yield the sessions that were closed, and when, oldest first."""
        yield from self._ended.items()

    def note_ended(self, name: str, at: float) -> None:
        """Remember that a session was closed."""
        self._ended[name] = at

    def unix_time(self, moment: float) -> float | None:
        """Return what the wall clock shows at a moment of the hub's; ``None`` for never."""
        return None if moment == inf else self.wall_clock() + moment - self.clock()

    def cut(self, reason: EndReason) -> None:
        """End every stream now, whatever it is still owed."""
        for subscriber in tuple(self.streams.values()):
            subscriber.cut(reason)

    def until_drain(self) -> AbstractContextManager[trio.CancelScope]:
        """Cancel what is inside when the daemon drains: waits that only a client can end."""
        return _registered(self._until_drain, cancelled=self.draining)

    def until_short_of_memory(self) -> AbstractContextManager[trio.CancelScope]:
        """Cancel what is inside when the breaker opens: waits that hold memory meanwhile."""
        return _registered(self._until_short, cancelled=False)

    def _slices(self) -> Iterator[tuple[Session, ...]]:
        """Yield all sessions, some at a time: one step over thousands would stall the rest."""
        remaining = iter(tuple(self.sessions.values()))
        while some := tuple(islice(remaining, FAN_OUT_SLICE)):
            yield some

    def _sweep_session(self, session: Session, now: float) -> None:
        self.counters["events_expired"] += session.log.expire(now)
        if session.has_expired(now) and self.sessions.get(session.name) is session:
            self.counters["sessions_expired"] += 1
            self._drop(session)
            session.end(EndReason.SESSION_EXPIRED)

    async def _contain(self, session: Session) -> None:
        try:
            await session.run()
        except Exception:
            self.counters["sessions_crashed"] += 1
            log.exception("a session failed", session=session.name)
        finally:
            self._drop(session)


@contextmanager
def _registered(scopes: set[trio.CancelScope], *, cancelled: bool) -> Iterator[trio.CancelScope]:
    with trio.CancelScope() as scope:
        scopes.add(scope)
        try:
            if cancelled:
                scope.cancel()
            yield scope
        finally:
            scopes.discard(scope)


def short_of_memory() -> Unavailable:
    """Return the answer to a publisher who comes while the breaker is open."""
    return Unavailable("the daemon is short of memory", retry_after=PRESSURE_RETRY_AFTER_S)


def used_up(setting: str) -> TooMany:
    """Return the answer to a client or a subject that has its share already."""
    return TooMany(f"no more of these for you now (limits.{setting})", retry_after=RETRY_AFTER_S)


def draining() -> Unavailable:
    """Return the answer to a request that comes while the daemon drains."""
    return Unavailable("the daemon is restarting", retry_after=RETRY_AFTER_S)
