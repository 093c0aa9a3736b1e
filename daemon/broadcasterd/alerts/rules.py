"""Which alerts fire: figures and times in, changes out. No clock, no I/O.

=========== =========== ================================================= ===============
from        to          when                                              held for
=========== =========== ================================================= ===============
quiet       firing      the figure is at the threshold, or above          ``hold``
firing      quiet       it is below ``clear_below``, or has no value      ``clear_after``
firing      quiet       the rule is gone                                  -
=========== =========== ================================================= ===============

Between ``clear_below`` and the threshold nothing changes (hysteresis). A figure without a value (a
share of no requests) is no reason to fire, and none to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from broadcasterd.config import AlertRule
from broadcasterd.figures.watched import Watched


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule whose threshold is a number.

    Attributes:
        threshold, clear_below: in the unit of the figure.
        hold, clear_after: seconds.

    """

    name: str
    metric: Watched
    threshold: float
    clear_below: float
    hold: float
    clear_after: float
    severity: str
    action: str

    @classmethod
    def of(cls, rule: AlertRule, *, warning_mb: float, critical_mb: float) -> Rule:
        """Return a rule of the configuration, with the thresholds of memory that are in force."""
        named = {"memory.warning_mb": warning_mb, "memory.critical_mb": critical_mb}
        threshold = named[rule.threshold] if isinstance(rule.threshold, str) else rule.threshold
        return cls(
            name=rule.name,
            metric=rule.metric,
            threshold=threshold,
            clear_below=threshold * rule.clear_below,
            hold=rule.hold,
            clear_after=rule.clear_after,
            severity=rule.severity,
            action=rule.action,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """An alert that began to fire, or is over.

    Attributes:
        value: of the figure, as it was then; ``None``: it had none.
        lasted: the seconds that it fired; 0 where it begins.

    """

    rule: Rule
    is_firing: bool
    value: float | None
    lasted: float = 0.0


@dataclass(slots=True)
class Standing:
    """A rule, and how it stands.

    Attributes:
        value: of the figure, when it was looked at last.
        fired_at: since when it fires.
        turning_at: since when the figure has been where the rule would turn.

    """

    rule: Rule
    value: float | None = None
    fired_at: float | None = None
    turning_at: float | None = None

    def look(self, value: float | None, now: float) -> Change | None:
        """Take the figure of this moment."""
        self.value, rule = value, self.rule
        if self.fired_at is None:
            turns, wait = value is not None and value >= rule.threshold, rule.hold
        else:
            turns, wait = value is None or value < rule.clear_below, rule.clear_after
        if not turns:
            self.turning_at = None
            return None
        if self.turning_at is None:
            self.turning_at = now
        if now - self.turning_at < wait:
            return None
        self.turning_at = None
        if self.fired_at is None:
            self.fired_at = now
            return Change(rule, is_firing=True, value=value)
        return self.end(now)

    def end(self, now: float) -> Change:
        """Fire no longer."""
        lasted = 0.0 if self.fired_at is None else now - self.fired_at
        self.fired_at = None
        return Change(self.rule, is_firing=False, value=self.value, lasted=lasted)


class Alerts:
    """All rules. Times are seconds on one monotonic clock, which is the caller's.

    Args:
        rules: each of another name.

    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._standings = {rule.name: Standing(rule) for rule in rules}

    @property
    def standings(self) -> Sequence[Standing]:
        """How each rule stands, in the order of the configuration."""
        return [*self._standings.values()]

    @property
    def firing(self) -> list[str]:
        """The names of the alerts that fire."""
        return [name for name, each in self._standings.items() if each.fired_at is not None]

    def look(self, read: Callable[[Watched], float | None], now: float) -> list[Change]:
        """Look at each figure that a rule is about, once; return what changes with it."""
        metrics = {each.rule.metric for each in self._standings.values()}
        values = {metric: read(metric) for metric in metrics}
        looks = [each.look(values[each.rule.metric], now) for each in self._standings.values()]
        return [change for change in looks if change is not None]

    def replace(self, rules: Iterable[Rule], now: float) -> list[Change]:
        """Go on with other rules; return the end of each alert that fires without one.

        What fires goes on under its name, whatever else of the rule has changed.
        """
        before, self._standings = self._standings, {rule.name: Standing(rule) for rule in rules}
        for name, standing in self._standings.items():
            if was := before.pop(name, None):
                standing.fired_at = was.fired_at
                if was.rule == standing.rule:
                    standing.turning_at = was.turning_at
        return [each.end(now) for each in before.values() if each.fired_at is not None]

    def lasting(self, now: float) -> list[tuple[str, float]]:
        """Return the alerts that fire, and for how many seconds."""
        return [
            (name, now - each.fired_at)
            for name, each in self._standings.items()
            if each.fired_at is not None
        ]

    def resume(self, lasting: Iterable[tuple[str, float]], now: float) -> None:
        """Have these fire, for so many seconds already: the process before told of them."""
        for name, seconds in lasting:
            if name in self._standings:
                self._standings[name].fired_at = now - seconds
