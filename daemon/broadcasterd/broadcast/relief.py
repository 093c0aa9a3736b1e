"""Relief: what the supervisor does about memory, look by look, and the record of the breaker.

In warning and half-open it goes step by step, for the resident set lags behind what was freed: free
what the excess needs, give it back to the kernel, measure, and only then the next. An open breaker
has no time for that: it goes on until enough is freed by the daemon's own account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from broadcasterd.broadcast.hub import Hub
from broadcasterd.core.reasons import EndReason
from broadcasterd.memory.breaker import MIB, State, Transition
from broadcasterd.memory.policy import (
    DisconnectLaggards,
    ExpireEarly,
    Forget,
    ReliefAction,
    SessionVitals,
    Trim,
    plan,
)
from broadcasterd.memory.ration import Ration
from broadcasterd.memory.reclaim import ReleaseRule
from broadcasterd.memory.residue import Residue

log = structlog.stdlib.get_logger(__name__)

FEW = 1000
"""With no more sessions and streams, memory is given back thoroughly: some 20 ms more. It would be
200 ms with ten thousand."""

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
        self._has_released = False  # and not looked since
        self._rest = 0  # bytes of a step that are still to be freed
        hub.pressure.watchers.append(self._note_transition)

    def look(self) -> bool:
        """Sample, and give back or plan and act; return whether that was all there is to do now.

        In one step, without a checkpoint: what was planned on is still so when it is done.
        """
        hub, pressure = self._hub, self._hub.pressure
        used, counted, thresholds = self._memory.used(), hub.counted_bytes, pressure.thresholds
        if thresholds is None:
            return True
        # Bytes that were freed and are not given back yet still show in ``used``.
        settled = used - self._release.freed(counted)
        self._residue.observe(settled, counted)
        if self._has_released and self._residue.was_released(thresholds.recover):
            log.warning("memory that nothing can free", mb=round(self._residue.excused / MIB, 1))
        self._has_released = False
        pressure.sample(used, excused=self._residue.excused)
        state, is_held_up = pressure.state, self._residue.exceeds(thresholds.recover)
        if self._release.is_due(
            counted=counted, state=state, now=hub.clock.now(), is_puzzling=is_held_up
        ):
            self._memory.release(thorough=len(hub.sessions) + len(hub.subscribers) <= FEW)
            self._has_released = True
            return False  # what that has changed is looked at next, when others have had their turn
        if state is None or is_held_up:
            return True  # whatever histories gave up, it would not be enough
        used = settled - self._residue.excused
        if state is State.OPEN:
            return self._act(state, used - int(thresholds.recover * OPEN_TARGET))
        if not self._rest and not self._release.is_wanted:
            self._rest = self._ration.step(used - thresholds.recover, counted - hub.bodies.bytes)
        return self._take_step(state)

    def _take_step(self, state: State) -> bool:
        before = self._hub.counted_bytes
        is_whole = self._act(state, self._rest)
        freed = before - self._hub.counted_bytes
        self._ration.spend(freed)
        self._rest = 0 if is_whole else max(0, self._rest - freed)
        if freed:
            self._release.is_wanted = True
        return not self._rest

    def _act(self, state: State, to_free: int) -> bool:
        todo = plan(state, to_free, lambda: vitals(self._hub))
        relieve(self._hub, todo.actions)
        return todo.is_whole

    def _note_transition(self, transition: Transition) -> None:
        hub = self._hub
        self._ration, self._rest = Ration(), 0
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
