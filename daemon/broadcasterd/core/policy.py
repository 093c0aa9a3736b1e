"""What the supervisor does about memory: decided here, from figures alone.

Both stages give up first what is missed least: the histories that nobody has touched for the
longest time. The stages differ in how deep they cut.

- *Warning* shortens histories, to a quarter each, until enough is freed.
- *Open* forgets sessions that nobody listens to, then shortens the histories of the others, to
  nothing if it must; it drops all events past half their lifetime, and readers that lag.

What is freed is an estimate, and counted again with the next sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broadcasterd.core.breaker import State, Thresholds

KEPT_SHARE = 4
"""A history that is shortened keeps one part in so many: a reconnect still finds the newest."""

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


@dataclass(frozen=True, slots=True)
class ReleaseMemory:
    """Give what was freed back to the kernel."""


Action = Trim | Forget | ExpireEarly | CutLaggards | ReleaseMemory


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
    if state not in {State.WARNING, State.OPEN} or excess <= 0:
        return []
    idlest_first = sorted(sessions(), key=lambda session: -session.idle)
    actions: list[Action] = []
    if state is State.OPEN:
        actions += [ExpireEarly(share=0.5), CutLaggards()]
        excess = _forget(idlest_first, excess, actions)
        idlest_first = [session for session in idlest_first if session.subscribers]
    excess = _trim(idlest_first, KEPT_SHARE, excess, actions)
    if state is State.OPEN and excess > 0:
        actions += [Trim(session.name, 0) for session in idlest_first if session.bytes]
    return [*actions, ReleaseMemory()]


def _forget(sessions: Sequence[SessionVitals], excess: int, actions: list[Action]) -> int:
    for session in sessions:
        if excess <= 0:
            break
        if not session.subscribers:
            actions.append(Forget(session.name))
            excess -= session.bytes
    return excess


def _trim(
    sessions: Sequence[SessionVitals], kept_share: int, excess: int, actions: list[Action]
) -> int:
    for session in sessions:
        if excess <= 0:
            break
        kept = session.bytes // kept_share
        if kept < session.bytes:
            actions.append(Trim(session.name, kept))
            excess -= session.bytes - kept
    return excess
