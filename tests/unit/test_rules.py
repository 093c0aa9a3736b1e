"""Rules over figures: when an alert fires, when it is over, and what a reload does to it.

A figure is looked at once a second, from second 0 on; in a row of figures ``None`` has no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from broadcasterd.alerts.rules import Alerts, Rule
from broadcasterd.config import SHIPPED_RULES, AlertRule
from broadcasterd.figures.watched import Watched


def rule(name: str = "alert", metric: Watched = Watched.USED_MB, **changes: Any) -> Rule:  # noqa: ANN401 (any field)
    """Return a rule: at 100 it fires after 3 s, below 90 it is over after 2 s."""
    fields = {"threshold": 100.0, "clear_below": 90.0, "hold": 3.0, "clear_after": 2.0}
    return Rule(name, metric, severity="warning", action="journal", **(fields | changes))


def changes_in(alerts: Alerts, figures: Iterable[float | None], start: int = 0) -> list[str]:
    """Return what changed, and in which second."""
    return [
        f"{second}: {'firing' if change.is_firing else 'over'}"
        for second, figure in enumerate(figures, start)
        for change in alerts.look(lambda _: figure, float(second))  # noqa: B023 (called at once)
    ]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        pytest.param([99.9] * 10, [], id="below the threshold"),
        pytest.param([100] * 3, [], id="not for long enough"),
        pytest.param([100] * 4, ["3: firing"], id="for long enough"),
        pytest.param([100] * 9, ["3: firing"], id="told once"),
        pytest.param([100, 100, 100, 99, 100, 100, 100, 100], ["7: firing"], id="from anew"),
        pytest.param([200] * 4 + [90] * 9, ["3: firing"], id="in between it fires on"),
        pytest.param([200] * 4 + [89] * 2, ["3: firing"], id="not over for long enough"),
        pytest.param([200] * 4 + [89] * 3, ["3: firing", "6: over"], id="over"),
        pytest.param([200] * 4 + [89, 89, 90, 89, 89, 89], ["3: firing", "9: over"], id="anew"),
        pytest.param([150, 50] * 10, [], id="it flaps: never"),
        pytest.param([200] * 4 + [50, 150] * 10, ["3: firing"], id="it flaps: all the time"),
        pytest.param([None] * 9, [], id="no value"),
        pytest.param([200, 200, 200, None, 200], [], id="no value is not above"),
        pytest.param([200] * 4 + [None] * 3, ["3: firing", "6: over"], id="no value any more"),
        pytest.param(
            [200] * 4 + [0] * 3 + [200] * 4, ["3: firing", "6: over", "10: firing"], id="again"
        ),
    ],
)
def test_an_alert_fires_and_is_over(figures: Sequence[float | None], expected: list[str]) -> None:
    assert expected == changes_in(Alerts([rule()]), figures)


def test_without_times_it_fires_and_is_over_at_once() -> None:
    alerts = Alerts([rule(hold=0.0, clear_after=0.0)])

    assert ["0: firing", "1: over", "3: firing"] == changes_in(alerts, [100, 89, 95, 100])


def test_a_change_has_the_figure_and_how_long_it_fired() -> None:
    alerts = Alerts([rule(hold=0.0)])
    [begun] = alerts.look(lambda _: 512.5, 10.0)
    alerts.look(lambda _: 80.0, 12.0)
    [over] = alerts.look(lambda _: 70.0, 14.0)

    assert (True, 512.5, 0.0) == (begun.is_firing, begun.value, begun.lasted)
    assert (False, 70.0, 4.0) == (over.is_firing, over.value, over.lasted)


def test_each_figure_is_read_once_a_look() -> None:
    read: list[Watched] = []

    def reading(figure: Watched) -> float:
        read.append(figure)
        return 0.0

    Alerts([rule("a"), rule("b"), rule("c", Watched.SESSIONS)]).look(reading, 0.0)

    assert [Watched.SESSIONS, Watched.USED_MB] == sorted(read)


def test_rules_stand_for_themselves() -> None:
    alerts = Alerts([rule("low", threshold=10.0, hold=0.0), rule("high", hold=0.0)])
    changes_in(alerts, [50])

    assert ["low"] == alerts.firing
    assert [0.0, None] == [standing.fired_at for standing in alerts.standings]
    assert [50, 50] == [standing.value for standing in alerts.standings]


# --- a reload --------------------------------------------------------------------------------


@pytest.fixture
def firing() -> Alerts:
    """Return rules of which one fires since second 3."""
    alerts = Alerts([rule()])
    changes_in(alerts, [100] * 5)
    return alerts


def test_what_fires_goes_on_with_another_threshold(firing: Alerts) -> None:
    assert [] == firing.replace([rule(threshold=120.0, clear_below=95.0)], 5.0)
    assert [] == changes_in(firing, [100] * 5, start=5)
    assert ["12: over"] == changes_in(firing, [94] * 3, start=10)


def test_what_waits_to_fire_waits_on_where_its_rule_is_the_same() -> None:
    alerts = Alerts([rule()])
    changes_in(alerts, [100] * 2)
    alerts.replace([rule("another"), rule()], 2.0)

    assert ["3: firing", "5: firing"] == changes_in(alerts, [100] * 4, start=2)


def test_what_waits_to_fire_begins_anew_with_another_rule() -> None:
    alerts = Alerts([rule()])
    changes_in(alerts, [100] * 3)
    alerts.replace([rule(threshold=99.0)], 3.0)

    assert ["6: firing"] == changes_in(alerts, [100] * 5, start=3)


def test_what_fires_without_a_rule_is_over(firing: Alerts) -> None:
    [over] = firing.replace([rule("another")], 6.0)

    assert ("alert", False, 3.0) == (over.rule.name, over.is_firing, over.lasted)
    assert [] == firing.firing


def test_a_rule_that_is_gone_and_never_fired_is_not_told() -> None:
    assert [] == Alerts([rule()]).replace([], 1.0)


# --- a restart -------------------------------------------------------------------------------


def test_what_fired_before_a_restart_is_not_told_again() -> None:
    alerts = Alerts([rule(), rule("another")])
    alerts.resume([("alert", 100.0), ("a rule that is gone", 5.0)], now=0.0)

    assert ["alert"] == alerts.firing
    assert ["3: firing"] == changes_in(alerts, [100] * 5), "the other one"


def test_what_fired_before_a_restart_and_is_well_is_over() -> None:
    alerts = Alerts([rule()])
    alerts.resume([("alert", 100.0)], now=0.0)
    alerts.look(lambda _: None, 0.0)
    [over] = alerts.look(lambda _: None, 2.0)

    assert (False, 102.0) == (over.is_firing, over.lasted)


def test_what_fires_can_be_left_to_another_process(firing: Alerts) -> None:
    other = Alerts([rule()])
    other.resume(firing.lasting(now=10.0), now=1000.0)

    assert [("alert", 7.0)] == firing.lasting(now=10.0) == other.lasting(now=1000.0)


# --- of the configuration --------------------------------------------------------------------


def test_a_threshold_of_memory_is_the_one_in_force() -> None:
    [warning, critical] = [
        Rule.of(each, warning_mb=50.0, critical_mb=80.0) for each in SHIPPED_RULES[:2]
    ]

    assert ("memory_warning", 50.0, 45.0) == (
        warning.name,
        warning.threshold,
        warning.clear_below,
    )
    assert ("memory_critical", 80.0, 72.0) == (
        critical.name,
        critical.threshold,
        critical.clear_below,
    )


def test_other_thresholds_are_numbers() -> None:
    each = AlertRule(name="a", metric=Watched.SESSIONS, threshold=10, clear_below=0.5, hold=7)
    made = Rule.of(each, warning_mb=1.0, critical_mb=2.0)

    assert (10, 5.0, 7, 60.0) == (made.threshold, made.clear_below, made.hold, made.clear_after)


def test_the_shipped_alerts_are_those_that_were_promised() -> None:
    made = [Rule.of(each, warning_mb=200.0, critical_mb=500.0) for each in SHIPPED_RULES]

    assert {
        "memory_warning": (200.0, "warning", "notify_team"),
        "memory_critical": (500.0, "critical", "page_on_call"),
        "error_rate": (0.01, "warning", "notify_team"),
        "health_latency": (100.0, "warning", "notify_team"),
        "loop_lag": (100.0, "warning", "notify_team"),
        "engine_down": (1.0, "critical", "page_on_call"),
        "publishes_refused": (0.1, "warning", "notify_team"),
        "test_failures": (0.05, "warning", "notify_team"),
        "hook_performance": (5.0, "warning", "notify_team"),
    } == {each.name: (each.threshold, each.severity, each.action) for each in made}
