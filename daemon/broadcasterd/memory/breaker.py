"""The memory circuit breaker: samples in, transitions out. No clock, no I/O.

The machine is this table. A rule fires when its condition was true in every sample for as long
as ``held`` says; the rules of a state are tried in order, and one sample may fire several, so
that no state is ever skipped.

============ ============ ================================================ =======
from         to           when                                             held
============ ============ ================================================ =======
closed       warning      used >= warning                                  -
warning      open         used >= critical                                 -
warning      closed       used < recover                                   3 s
open         half-open    used < recover                                   3 s
open         half-open    used < critical (all that could be freed is)     30 s
half-open    open         used >= critical                                 -
half-open    closed       used < recover                                   3 s
half-open    closed       used < critical                                  30 s
============ ============ ================================================ =======

``recover`` lies below ``warning``: between the two nothing changes (hysteresis). The rules of 30 s
keep the breaker from latching: a daemon whose live subscribers alone take more than ``recover``
would otherwise never accept an event again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

MIB = 1024 * 1024

SETTLED_S = 3.0
"""Memory that is back only for a moment is not back: several samples have to agree."""

PATIENCE_S = 30.0
"""Memory that is still used after so long of shedding is in real use."""

CRITICAL_SHARE = 0.8
WARNING_SHARE = 0.5
"""Shares of a cgroup's limit: the rest is for the kernel's buffers, and for the time to act."""


class State(StrEnum):
    """The states of the breaker."""

    CLOSED = "closed"
    WARNING = "warning"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bytes: ``recover`` < ``warning`` < ``critical``."""

    warning: int
    critical: int
    recover: int

    @classmethod
    def derive(
        cls,
        *,
        warning_mb: float,
        critical_mb: float,
        recover_below: float,
        limit: int | None = None,
    ) -> Thresholds:
        """Return the thresholds of these settings, lower where a cgroup's limit requires it."""
        warning, critical = warning_mb * MIB, critical_mb * MIB
        if limit is not None:
            warning = min(warning, limit * WARNING_SHARE)
            critical = min(critical, limit * CRITICAL_SHARE)
        return cls(int(warning), int(critical), int(warning * recover_below))


def bytes_used(
    *, rss: int, cgroup_used: int | None, limit: int | None, thresholds: Thresholds
) -> int:
    """Return the bytes to hold against the thresholds: this process's, or a full cgroup's.

    A cgroup holds other processes too, so its use counts only near its limit: what is above a
    slack as large as the difference between that limit and our own critical threshold.
    """
    if cgroup_used is None or limit is None:
        return rss
    slack = max(0, int(limit * CRITICAL_SHARE) - thresholds.critical)
    return max(rss, cgroup_used - slack)


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table."""

    before: State
    after: State
    when: Callable[[int, Thresholds], bool]
    held: float = 0.0


RULES = (
    Rule(State.CLOSED, State.WARNING, lambda used, t: used >= t.warning),
    Rule(State.WARNING, State.OPEN, lambda used, t: used >= t.critical),
    Rule(State.WARNING, State.CLOSED, lambda used, t: used < t.recover, SETTLED_S),
    Rule(State.OPEN, State.HALF_OPEN, lambda used, t: used < t.recover, SETTLED_S),
    Rule(State.OPEN, State.HALF_OPEN, lambda used, t: used < t.critical, PATIENCE_S),
    Rule(State.HALF_OPEN, State.OPEN, lambda used, t: used >= t.critical),
    Rule(State.HALF_OPEN, State.CLOSED, lambda used, t: used < t.recover, SETTLED_S),
    Rule(State.HALF_OPEN, State.CLOSED, lambda used, t: used < t.critical, PATIENCE_S),
)


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state at ``now``, with ``used`` bytes in use."""

    before: State
    after: State
    used: int
    now: float


class Breaker:
    """The machine. It starts closed."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self.state = State.CLOSED
        self._true_since: dict[Rule, float] = {}

    def observe(self, used: int, *, now: float) -> list[Transition]:
        """Take a sample of the bytes used; return the transitions that it makes, in order."""
        transitions = []
        while (rule := self._due(used, now)) is not None:
            self.state = rule.after
            transitions.append(Transition(rule.before, rule.after, used, now))
        return transitions

    def _due(self, used: int, now: float) -> Rule | None:
        due = None
        for rule in RULES:
            if rule.before is not self.state or not rule.when(used, self.thresholds):
                self._true_since.pop(rule, None)
            elif now - self._true_since.setdefault(rule, now) >= rule.held:
                due = due or rule
        return due
