"""Relief: what the supervisor does about memory, look by look, and the record of the breaker.

Whoever holds memory for nothing lets go of it first: connections that nobody uses, answers that
nobody reads. No history pays for what is held so, nor for what clients have in use.

In warning and half-open it goes step by step, for the resident set lags behind what was freed: free
what the excess needs, give it back to the kernel, measure, and only then the next. An open breaker
has no time for that: it goes on until enough is freed by the daemon's own account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

import structlog

from broadcasterd.broadcast.deadlines import forget_stale_deadlines
from broadcasterd.broadcast.hub import Hub
from broadcasterd.core.reasons import EndReason
from broadcasterd.memory.breaker import MIB, State, Thresholds, Transition
from broadcasterd.memory.holdings import LetGo
from broadcasterd.memory.policy import (
    DisconnectLaggards,
    ExpireEarly,
    Forget,
    ReliefAction,
    SessionVitals,
    Trim,
    plan,
)
from broadcasterd.memory.ration import MARGIN_SHARE, SMALLEST_STEP_BYTES, Ration
from broadcasterd.memory.reclaim import ReleaseRule
from broadcasterd.memory.residue import MUCH_BYTES, WASTE_BYTES, Residue

log = structlog.stdlib.get_logger(__name__)

FEW = 1000
"""With no more sessions, streams and connections, memory is given back thoroughly: some 20 ms
more. It would be 200 ms with ten thousand."""

LAG_S = 5.0
"""What clients had, or let go of, takes a while to be back: no history pays meanwhile."""

OPEN_TARGET = 0.9
"""Share of ``recover`` that an open breaker brings memory down to, so that it surely closes."""


class Release(Protocol):
    """Gives freed memory back to the kernel; what that does thoroughly takes longer."""

    def __call__(self, *, thorough: bool) -> None: ...  # noqa: D102


@dataclass(slots=True)
class MemoryHost:
    """What the host does for the supervisor.

    Attributes:
        used: returns the bytes that count against the thresholds, now.
        rss: returns the bytes of memory resident, for the breaker's records.
        release: gives freed memory back to the kernel.
        sample_interval: seconds between two looks, where nothing makes them more urgent; it may
            change from one look to the next.

    """

    used: Callable[[], int]
    rss: Callable[[], int]
    release: Release
    sample_interval: float


class Relief:
    """Relieves a hub of memory where that is needed, and records what the breaker does.

    Args:
        hub: whose sessions give memory up.
        memory: the host's figures.

    """

    def __init__(self, hub: Hub, memory: MemoryHost) -> None:
        self._hub = hub
        self._memory = memory
        self._release = ReleaseRule()
        self._ration = Ration()
        self._residue = Residue()
        self._is_releasing = False  # at the next look
        self._has_released = False  # and not looked since
        self._is_spent = False  # no more may be freed than is published, and memory is not back
        self._rest = 0  # bytes of a step that are still to be freed
        self._told_at = -inf  # when clients were told last to let go
        self._told_bytes = 0  # what those had who were of no use then
        self._clients_at = -inf  # when it was clients last who had too much
        self._unexplained_at = -inf  # when it was last what no count explains
        self._residue_before = 0  # bytes that no count explained, before any was told
        self._most_told = 0  # bytes, since the breaker was closed last
        hub.pressure.watchers.append(self._note_transition)

    def look(self) -> bool:
        """Sample, and give back or plan and act; return whether that was all there is to do now.

        In one step, without a checkpoint: what was planned on is still so when it is done.
        """
        hub, pressure = self._hub, self._hub.pressure
        if self._is_releasing:
            return self._give_back()
        used, counted, thresholds = self._memory.used(), hub.counted_bytes, pressure.thresholds
        if thresholds is None:
            return True
        # Bytes that were freed and are not given back yet still show in ``used``.
        settled = used - self._release.freed(counted)
        self._residue.observe(settled, counted)
        if self._has_released and self._residue.was_released(
            thresholds.recover, is_spent=self._is_spent
        ):
            log.warning("memory that nothing can free", mb=round(self._residue.excused / MIB, 1))
        self._has_released = False
        pressure.sample(used, excused=self._residue.excused)
        state = pressure.state
        if self._release.is_due(
            counted=counted,
            state=state,
            now=hub.clock.now(),
            is_puzzling=self._is_puzzling(state, thresholds),
        ):
            self._is_releasing = True
            if self._is_thorough:
                forget_stale_deadlines()
            return False  # it is given back when others have had their turn
        if state is None:
            return True
        return self._relieve(state, settled - self._residue.excused, thresholds)

    def _is_puzzling(self, state: State | None, thresholds: Thresholds) -> bool:
        if state is State.CLOSED:
            freed = self._release.freed(self._hub.counted_bytes)
            return freed + self._residue.unexplained - self._residue.excused >= WASTE_BYTES
        return self._is_spent or self._residue.exceeds(thresholds.recover)

    @property
    def _is_thorough(self) -> bool:
        hub = self._hub
        return len(hub.sessions) + len(hub.subscribers) + len(hub.holdings) <= FEW

    def _give_back(self) -> bool:
        self._memory.release(thorough=self._is_thorough)
        self._is_releasing, self._has_released = False, True
        return False  # what that has changed is looked at next, when others have had their turn

    def _relieve(self, state: State, used: int, thresholds: Thresholds) -> bool:
        """Have memory given up, by whoever has it for nothing first."""
        goal = self._goal(state, thresholds)
        unused = self._let_go(used - goal, state)
        if unused.told:
            return False  # they have their turn, and what that has changed is looked at
        if self._residue.exceeds(thresholds.recover):
            self._unexplained_at = self._hub.clock.now()
            return True  # whatever histories gave up, it would not be enough
        excess = used - unused.bytes - goal
        if state is State.OPEN:
            if self._is_clients(goal) or self._is_coming_back(excess):
                self._release.is_wanted = True
                return True  # it is clients who have to give something up, or have
            return self._act(state, excess)
        return self._step(state, excess, thresholds)

    def _goal(self, state: State, thresholds: Thresholds) -> int:
        """Return the bytes to come down to; an open breaker goes for what histories can bring."""
        if state is not State.OPEN:
            return thresholds.recover
        can_recover = not self._residue.exceeds(thresholds.recover, besides=self._in_use())
        return int((thresholds.recover if can_recover else thresholds.critical) * OPEN_TARGET)

    def _in_use(self) -> int:
        """Return the bytes that are counted, and no history's."""
        return self._hub.counted_bytes - self._hub.history_bytes

    def _let_go(self, excess: int, state: State) -> LetGo:
        """Have clients let go of so much that is of no use; of more, where they take too much."""
        hub, now = self._hub, self._hub.clock.now()
        crowd = hub.crowd_bytes
        wanted = 0 if state is State.CLOSED else excess + excess // MARGIN_SHARE
        if crowd >= 0:
            wanted = max(wanted, crowd + hub.client_bytes // MARGIN_SHARE)
        if wanted <= 0:
            return LetGo(0, 0)
        unused = hub.holdings.let_go(wanted, now=now, besides=hub.subscribers.behind())
        if unused.told:
            is_more = now - self._told_at < LAG_S
            self._told_bytes = max(unused.bytes, self._told_bytes if is_more else 0)
            self._told_at = now
            if not self._most_told:
                self._residue_before = self._residue.held_against_us
            self._most_told = max(self._most_told, unused.bytes)
            self._release.is_wanted = True
        return unused

    def _is_coming_back(self, excess: int) -> bool:
        """Whether clients have just let go of about as much: they may have had more than counts.

        An open breaker waits for no less than that, or a stranger would hold it up bit by bit.
        """
        is_recent = self._hub.clock.now() - self._told_at < LAG_S
        return is_recent and excess <= 2 * self._told_bytes

    def _step(self, state: State, excess: int, thresholds: Thresholds) -> bool:
        """Take the next step of a warning; it waits for what others have just let go of."""
        # What no count explains may be of requests that are over: a look that meets it on its way
        # down is no reason that a history pays.
        if self._hub.clock.now() - max(self._told_at, self._unexplained_at) < LAG_S:
            self._release.is_wanted |= excess >= 0
            return True
        if self._is_clients(thresholds.recover):
            self._is_spent = True
            return True  # it is in use by those who may, or was until now
        if not self._rest and not self._release.is_wanted:
            self._rest = self._ration.step(excess - self._left_behind(), self._hub.history_bytes)
            self._is_spent = excess >= 0 and self._rest < SMALLEST_STEP_BYTES
        before = self._hub.counted_bytes
        is_whole = self._act(state, self._rest)
        freed = before - self._hub.counted_bytes
        self._ration.spend(freed)
        self._rest = 0 if is_whole else max(0, self._rest - freed)
        if freed:
            self._release.is_wanted = True
        return not self._rest

    def _is_clients(self, bound: int) -> bool:
        """Whether clients have, or had a moment ago, what keeps memory above ``bound``."""
        now = self._hub.clock.now()
        if self._residue.exceeds(bound, besides=self._in_use()):
            self._clients_at = now
        return now - self._clients_at < LAG_S

    def _left_behind(self) -> int:
        """Return the bytes that clients have let go of, and that are not back.

        So few that they are never excused would hold the breaker up: histories bring these, too.
        """
        grown = self._residue.held_against_us - self._residue_before
        left = min(grown, self._most_told)
        return left if left >= MUCH_BYTES else 0

    def _act(self, state: State, to_free: int) -> bool:
        todo = plan(state, to_free, lambda: vitals(self._hub))
        relieve(self._hub, todo.actions)
        return todo.is_whole

    def _note_transition(self, transition: Transition) -> None:
        hub = self._hub
        self._ration, self._rest, self._is_spent = Ration(), 0, False
        if transition.after is State.CLOSED:
            self._most_told = 0
        if transition.after is State.OPEN:
            hub.interrupts.short_of_memory()
        log.warning(
            "memory breaker",
            before=transition.before.value,
            after=transition.after.value,
            rss_mb=round(self._memory.rss() / MIB, 1),
            used_mb=round(transition.used / MIB, 1),
            counted_mb=round(hub.counted_bytes / MIB, 1),
            sessions=len(hub.sessions),
            streams=len(hub.subscribers),
        )


def vitals(hub: Hub) -> list[SessionVitals]:
    """Return what the policy has to know of each session."""
    now = hub.clock.now()
    return [
        SessionVitals(
            s.name, len(s.log), s.log.bytes, len(s.subscribers), now - s.published_at, s.subject
        )
        for s in hub.sessions.values()
    ]


def relieve(hub: Hub, actions: Sequence[ReliefAction]) -> None:
    """Do what the policy decided, all in one step."""
    for action in actions:
        match action:
            case Trim(name, to_bytes):
                hub.sessions[name].log.trim(to_bytes)
            case Forget(name):
                session = hub.sessions[name]
                session.log.trim(0)
                hub.drop(session, EndReason.MEMORY)
            case ExpireEarly(share):
                now = hub.clock.now()
                for session in hub.sessions.values():
                    session.log.expire(now, share=share)
            case DisconnectLaggards():
                for stream in tuple(hub.subscribers.by_id.values()):
                    if stream.is_behind:
                        retry_ms = hub.subscribers.jittered_retry_ms()
                        stream.disconnect(EndReason.MEMORY, retry_ms=retry_ms)
