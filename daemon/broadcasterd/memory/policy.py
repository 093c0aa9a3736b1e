"""What the supervisor does about memory: decided here, from figures alone.

Both stages give up first what is missed least: the histories that nobody has touched for the
longest time. The stages differ in how deep they cut.

- *Warning*, and half-open too, shortens histories, to a quarter each at the most, and the last of
  them by no more than is needed. A session that nobody listens to and that has next to nothing left
  costs more than its history is worth, and is forgotten.
- *Open* drops all events past half their lifetime and all readers that lag, forgets sessions that
  nobody listens to, and empties the histories of the others.

How much is to be freed is the caller's to say (:mod:`broadcasterd.memory.ration`). A plan is
bounded, for all of it is done in one step: where that is not enough, another one follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broadcasterd.memory.breaker import State

KEPT_SHARE = 4
"""A history that is shortened keeps at least one part in so many: a reconnect still finds the
newest."""

SMALL_BYTES = 4 * 1024
"""A history below it is not worth shortening: an open session alone takes as much."""

SESSION_BYTES = 4 * 1024
"""An open session takes so much beside its log: most of it is its task (measured: 3.7 KB)."""

IDLE_S = 15.0
"""A session that was published to within so many seconds is in use, whoever listens: a flood of new
ones is for the open breaker to turn away, not for the warning to forget."""

MAX_ACTIONS = 500
"""A plan has no more: they take up to 10 ms, and the endings that follow as long again."""

MAX_EVENTS = 10_000
"""A plan drops no more, beside one history that goes over it; they take 15 ms (measured)."""


@dataclass(frozen=True, slots=True)
class SessionVitals:
    """What the policy knows of a session; ``idle`` in seconds since it was last published to."""

    name: str
    events: int
    bytes: int
    subscribers: int
    idle: float


@dataclass(frozen=True, slots=True)
class Trim:
    """Shorten a session's history to so many bytes."""

    name: str
    to_bytes: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Forget a session that nobody listens to."""

    name: str


@dataclass(frozen=True, slots=True)
class ExpireEarly:
    """Drop all events past this share of their lifetime."""

    share: float


@dataclass(frozen=True, slots=True)
class DisconnectLaggards:
    """End the streams that are not up to date: they come back and resume by id."""


ReliefAction = Trim | Forget | ExpireEarly | DisconnectLaggards


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in order; and whether that is all, or another plan has to follow."""

    actions: Sequence[ReliefAction] = ()
    is_whole: bool = True


def plan(state: State, to_free: int, sessions: Callable[[], Sequence[SessionVitals]]) -> Plan:
    """Plan to free so many bytes; nothing where there are none to free.

    ``sessions`` is asked only where there are: there may be thousands.
    """
    if state is State.CLOSED or to_free <= 0:
        return Plan()
    idlest_first = sorted(sessions(), key=lambda session: -session.idle)
    actions: list[ReliefAction] = []
    if state is State.OPEN:
        actions += [ExpireEarly(share=0.5), DisconnectLaggards()]
    events = 0
    for session in idlest_first:
        if to_free <= 0:
            break
        if len(actions) >= MAX_ACTIONS or events >= MAX_EVENTS:
            return Plan(actions, is_whole=False)
        action = _empty(session) if state is State.OPEN else _shorten(session, to_free)
        if action is not None:
            actions.append(action)
            events += session.events
            to_free -= _freed(session, action)
    return Plan(actions)


def _shorten(session: SessionVitals, to_free: int) -> Trim | Forget | None:
    kept = session.bytes // KEPT_SHARE
    if not session.subscribers and kept < SMALL_BYTES and session.idle >= IDLE_S:
        return Forget(session.name)
    return Trim(session.name, max(kept, session.bytes - to_free)) if kept >= SMALL_BYTES else None


def _empty(session: SessionVitals) -> Trim | Forget | None:
    if not session.subscribers:
        return Forget(session.name)
    return Trim(session.name, 0) if session.bytes else None


def _freed(session: SessionVitals, action: Trim | Forget) -> int:
    """Return what an action frees at the most: it drops whole events, so up to one too many."""
    if isinstance(action, Forget):
        return session.bytes + SESSION_BYTES
    an_event = session.bytes // max(session.events, 1)
    return min(session.bytes, session.bytes - action.to_bytes + an_event)
