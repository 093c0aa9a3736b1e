"""May a candidate take over? Each bound, from both sides, and what is not known."""

from __future__ import annotations

import msgspec
import pytest

from quality.comparison import BOUNDS, compare, table
from quality.report import Report
from quality.sections import (
    Check,
    Coverage,
    Deadlocks,
    Health,
    Hooks,
    Loop,
    Memory,
    Outcomes,
)

TESTS = Outcomes(
    passed=200, failed=0, skipped=1, hung=0, success_rate=1.0, seconds=60.0, failures=[]
)
HEALTH = Health(subscribers=200, events=100, polls=250, p50_ms=1.0, p99_ms=99.9, max_ms=300.0)
MEMORY = Memory(subscribers=200, events=100, peak_mb=199.9, end_mb=60.0, warning_mb=200.0)
HOOKS = Hooks(score=100.0, right=40, verdicts=40, wrong=[], seconds=4.99, times={})
CHECK = Check(passed=True, seconds=1.0, said="All checks passed!")
GOOD = Report(
    date="2026-01-15T12:00:00Z",
    commit="0123456789abcdef",
    changed=False,
    version="1.0",
    python="3.11.2",
    cores=2,
    selection="all",
    tests=TESTS,
    stress=msgspec.structs.replace(TESTS, passed=5),
    coverage=Coverage(percent=96.0, branches=True, measured_at="2026-01-15T11:00:00+00:00"),
    lint=CHECK,
    types=CHECK,
    security=CHECK,
    hooks=HOOKS,
    health=HEALTH,
    memory=MEMORY,
    loop=Loop(records=3, stuck=0, longest_ms=400.0, max_lag_ms=400.0),
    deadlocks=Deadlocks(tests=0, tasks=0),
    success_rate=1.0,
    hooks_seconds=4.99,
    unmeasured={},
)
"""As slow and as large as may be."""

FAILED = msgspec.structs.replace(CHECK, passed=False)
BAD = {
    "one passes less": {"tests": msgspec.structs.replace(TESTS, passed=199)},
    "too few pass": {
        "tests": msgspec.structs.replace(TESTS, passed=300, failed=16, success_rate=300 / 316)
    },
    "one scenario fails": {"stress": msgspec.structs.replace(TESTS, passed=5, failed=1)},
    "a scenario is missing": {"stress": msgspec.structs.replace(TESTS, passed=4)},
    "a test hangs": {"deadlocks": Deadlocks(tests=1, tasks=0)},
    "a task hangs": {"deadlocks": Deadlocks(tests=0, tasks=1)},
    "health is slow": {"health": msgspec.structs.replace(HEALTH, p99_ms=100.0)},
    "memory is short": {"memory": msgspec.structs.replace(MEMORY, peak_mb=200.0)},
    "hooks are slow": {"hooks": msgspec.structs.replace(HOOKS, seconds=5.0)},
    "a hook lets something pass": {"hooks": msgspec.structs.replace(HOOKS, wrong=["bandit"])},
    "lint": {"lint": FAILED},
    "types": {"types": FAILED},
    "security": {"security": FAILED},
}


def with_(report: Report, **changes: object) -> Report:
    return msgspec.structs.replace(report, **changes)


def refused(baseline: Report, candidate: Report) -> list[str]:
    return [row.name for row in compare(baseline, candidate) if row.refused]


def test_whatever_keeps_all_bounds_may_take_over() -> None:
    assert [] == refused(GOOD, GOOD)
    assert "accepted" == table(GOOD, GOOD, compare(GOOD, GOOD)).splitlines()[-1]


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_each_bound_that_is_missed_is_a_refusal(changes: dict[str, object]) -> None:
    candidate = with_(GOOD, **changes)

    assert [*changes] == refused(GOOD, candidate)
    assert f"REFUSED: {next(iter(changes))}" in table(GOOD, candidate, compare(GOOD, candidate))


def test_what_a_baseline_failed_in_is_no_excuse() -> None:
    bad = with_(GOOD, health=msgspec.structs.replace(HEALTH, p99_ms=300.0))

    assert ["health"] == refused(bad, bad)


@pytest.mark.parametrize("row", BOUNDS)
def test_nothing_is_assumed_of_what_a_candidate_could_not_be_asked(row: str) -> None:
    reasons = dict.fromkeys(("load", "tests", row), "the daemon does not start")
    candidate = with_(GOOD, **{row: None, "unmeasured": reasons})

    assert [row] == refused(GOOD, candidate)
    assert "the daemon does not start" in str(compare(GOOD, candidate))


@pytest.mark.parametrize("row", BOUNDS)
def test_what_a_baseline_could_not_be_asked_is_judged_by_the_bound_alone(row: str) -> None:
    assert [] == refused(with_(GOOD, **{row: None}), GOOD)


def test_the_loop_and_the_coverage_are_shown_and_decide_nothing() -> None:
    candidate = with_(GOOD, loop=None, coverage=None)
    rows = {row.name: row.verdict for row in compare(GOOD, candidate)}

    assert ["not judged"] * 2 == [rows["loop"], rows["coverage"]]
    assert [] == refused(GOOD, candidate)


def test_other_tests_than_the_baselines_prove_nothing() -> None:
    assert ["tests"] == refused(GOOD, with_(GOOD, selection="fast"))


def test_of_some_parts_only_their_rows_are_judged() -> None:
    candidate = with_(GOOD, tests=None, hooks=None)

    assert ["health", "memory", "loop"] == [row.name for row in compare(GOOD, candidate, ["load"])]


def test_what_is_long_goes_on_in_its_column() -> None:
    said = msgspec.structs.replace(CHECK, said="; ".join(["all is well"] * 20))
    lines = table(GOOD, with_(GOOD, lint=said), compare(GOOD, with_(GOOD, lint=said))).splitlines()

    assert 20 == sum(line.count("well") for line in lines)
    assert max(map(len, lines)) <= 140
