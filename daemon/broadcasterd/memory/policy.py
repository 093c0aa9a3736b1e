"""What the supervisor does about memory: decided here, from figures alone.

Both stages give up first what is missed least: the histories that nobody has touched for the
longest time. The stages differ in how deep they cut.

- *Warning*, and half-open likewise, shortens histories, to a quarter each. A session that nobody
  listens to and that has next to nothing left costs more than its history is worth, and is
  forgotten.
- *Open* drops all events past half their lifetime and all readers that lag, forgets sessions that
  nobody listens to, and empties the histories of the others.

What is freed is an estimate, and counted again with the next sample. One plan has a bounded number
of actions, for all of them are done in one step: where that is not enough, there is a next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broadcasterd.memory.breaker import State, Thresholds

KEPT_SHARE = 4
"""A history that is shortened keeps one part in so many: a reconnect still finds the newest."""

SMALL_BYTES = 16 * 1024
"""A history below it is not worth shortening: an open session alone takes more."""

SESSION_BYTES = 8 * 1024
"""What an open session takes beside its log: a task, a channel, a nursery (measured)."""

IDLE_S = 15.0
"""A session that was published to within so many seconds is in use, whoever listens: a flood of new
ones is for the open breaker to turn away, not for the warning to forget."""

MAX_ACTIONS = 500
"""Of one plan; they take up to 10 ms, and what they end takes as long again."""

TARGET = 0.9
"""Of ``recover``: what is freed has to bring memory below it, not just up to it."""


@dataclass(frozen=True, slots=True)
class SessionVitals:
    """What the policy knows of a session; ``idle`` in seconds since it was last published to."""

    name: str
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
class CutLaggards:
    """End the streams that are not up to date: they come back and resume by id."""


Action = Trim | Forget | ExpireEarly | CutLaggards


def plan(
    state: State,
    used: int,
    thresholds: Thresholds,
    sessions: Callable[[], Sequence[SessionVitals]],
) -> list[Action]:
    """Return what to do now, in order; nothing where memory is no concern.

    ``sessions`` is asked only where it is: there may be thousands.
    """
    excess = used - int(thresholds.recover * TARGET)
    if state is State.CLOSED or excess <= 0:
        return []
    idlest_first = sorted(sessions(), key=lambda session: -session.idle)
    actions: list[Action] = []
    if state is State.OPEN:
        actions += [ExpireEarly(share=0.5), CutLaggards()]
    for session in idlest_first:
        if excess <= 0 or len(actions) >= MAX_ACTIONS:
            break
        action = _empty(session) if state is State.OPEN else _shorten(session)
        if action is not None:
            actions.append(action)
            excess -= _freed(session, action)
    return actions


def _shorten(session: SessionVitals) -> Trim | Forget | None:
    kept = session.bytes // KEPT_SHARE
    if not session.subscribers and kept < SMALL_BYTES and session.idle >= IDLE_S:
        return Forget(session.name)
    return Trim(session.name, kept) if kept >= SMALL_BYTES else None


def _empty(session: SessionVitals) -> Trim | Forget | None:
    if not session.subscribers:
        return Forget(session.name)
    return Trim(session.name, 0) if session.bytes else None


def _freed(session: SessionVitals, action: Trim | Forget) -> int:
    if isinstance(action, Forget):
        return session.bytes + SESSION_BYTES
    return session.bytes - action.to_bytes
