"""What the supervisor does about memory: decided here, from figures alone.

Both stages begin with the subjects that hold more than their fair share of all history
(:mod:`broadcasterd.memory.shares`), and within each of them with what is missed least: the history
that nobody has touched for the longest time. Only where that is not enough, the others follow, the
idlest history first. The stages differ in how deep they cut.

- *Warning*, and half-open too, shortens histories, to a quarter each at the most, and the last of
  them by no more than is needed. A subject that is over its share loses the other quarter too, and
  what it cannot give yet, because its sessions are in use, nobody gives in its place. A session
  that nobody listens to and that has next to nothing left costs more than its history is worth, and
  is forgotten.
- *Open* drops all readers that lag, forgets sessions that nobody listens to, and empties the
  histories of the others; where others than those over their share have to pay, all events past
  half their lifetime go first.

How much is to be freed is the caller's to say (:mod:`broadcasterd.memory.ration`). A plan is
bounded, for all of it is done in one step: where that is not enough, another one follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from broadcasterd.memory.breaker import State
from broadcasterd.memory.shares import dues

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
"""A plan has no more for single sessions: they take up to 10 ms, and the endings that follow as
long again."""

MAX_EVENTS = 10_000
"""A plan drops no more, beside one history that goes over it; they take 15 ms (measured)."""


@dataclass(frozen=True, slots=True)
class SessionVitals:
    """What the policy knows of a session.

    Attributes:
        idle: seconds since it was last published to.
        subject: the one on whose account it was opened. Those without one count as one.

    """

    name: str
    events: int
    bytes: int
    subscribers: int
    idle: float
    subject: str | None = None


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
    owed = _owed(idlest_first, to_free)
    draft = _Draft(to_free)
    if state is State.OPEN:
        draft.cut(idlest_first, _empty, owed)
        spared = draft.is_full or draft.to_free <= 0
        draft.cut(idlest_first, _empty)
        first = [DisconnectLaggards()] if spared else [ExpireEarly(share=0.5), DisconnectLaggards()]
        return Plan([*first, *draft.actions.values()], is_whole=not draft.is_full)
    of_all = to_free - sum(owed.values())
    draft.cut(idlest_first, _shorten, owed)
    draft.cut(idlest_first, _shorten_further, owed)
    draft.to_free = min(draft.to_free, of_all)
    draft.cut(idlest_first, _shorten)
    return Plan([*draft.actions.values()], is_whole=not draft.is_full)


def _owed(sessions: Sequence[SessionVitals], to_free: int) -> dict[str | None, int]:
    """Return what subjects that hold more than their fair share pay first, in bytes.

    They hold histories, and sessions that nobody listens to.
    """
    held: Counter[str | None] = Counter()
    for session in sessions:
        held[session.subject] += session.bytes + (0 if session.subscribers else SESSION_BYTES)
    return dues(held, to_free)


Cut = Callable[[SessionVitals, int], Trim | Forget | None]
"""Returns what frees so many bytes of a session, or as many as may be."""


@dataclass(slots=True)
class _Draft:
    """A plan in the making: what is still to be freed, and what is done to each session."""

    to_free: int
    actions: dict[str, Trim | Forget] = field(default_factory=dict)
    events: int = 0
    is_full: bool = False

    def cut(
        self,
        sessions: Sequence[SessionVitals],
        cut: Cut,
        owed: dict[str | None, int] | None = None,
    ) -> None:
        """Cut one session after the other, until that is enough; further where it was cut before.

        ``owed`` names the subjects that pay, and how many bytes each still owes; without it, all
        sessions are cut.
        """
        for session in sessions:
            if self.to_free <= 0 or self.is_full:
                return
            if owed is None:
                self._cut_one(session, cut, self.to_free)
            elif (due := owed.get(session.subject, 0)) > 0:
                freed = self._cut_one(session, cut, min(due, self.to_free))
                owed[session.subject] = due - freed

    def _cut_one(self, session: SessionVitals, cut: Cut, wanted: int) -> int:
        before = self.actions.get(session.name)
        gone = _freed(session, before) if before else 0
        action = cut(session, gone + wanted)
        if action is None or (freed := _freed(session, action) - gone) <= 0:
            return 0
        if not before:
            if len(self.actions) >= MAX_ACTIONS or self.events >= MAX_EVENTS:
                self.is_full = True
                return 0
            self.events += session.events
        self.actions[session.name] = action
        self.to_free -= freed
        return freed


def _shorten(session: SessionVitals, to_free: int) -> Trim | Forget | None:
    kept = session.bytes // KEPT_SHARE
    if not session.subscribers and kept < SMALL_BYTES and session.idle >= IDLE_S:
        return Forget(session.name)
    return Trim(session.name, max(kept, session.bytes - to_free)) if kept >= SMALL_BYTES else None


def _shorten_further(session: SessionVitals, to_free: int) -> Trim | Forget | None:
    left = max(0, session.bytes - to_free)
    if not left and not session.subscribers and session.idle >= IDLE_S:
        return Forget(session.name)
    return Trim(session.name, left) if session.bytes else None


def _empty(session: SessionVitals, _: int) -> Trim | Forget | None:
    if not session.subscribers:
        return Forget(session.name)
    return Trim(session.name, 0) if session.bytes else None


def _freed(session: SessionVitals, action: Trim | Forget) -> int:
    """Return what an action frees at the most: it drops whole events, so up to one too many."""
    if isinstance(action, Forget):
        return session.bytes + SESSION_BYTES
    an_event = session.bytes // max(session.events, 1)
    return min(session.bytes, session.bytes - action.to_bytes + an_event)
