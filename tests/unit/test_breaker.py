"""The memory breaker: its written table, each row of it, and that no sample can get around it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from broadcasterd.memory import breaker
from broadcasterd.memory.breaker import (
    CRITICAL_SHARE,
    MIB,
    PATIENCE_S,
    RULES,
    SETTLED_S,
    WARNING_SHARE,
    Breaker,
    Rule,
    State,
    Thresholds,
    Transition,
    bytes_used,
)

CLOSED, WARNING, OPEN, HALF_OPEN = State.CLOSED, State.WARNING, State.OPEN, State.HALF_OPEN

T = Thresholds(warning=200, critical=500, recover=180)
SAMPLES = range(600)
"""Every figure that matters with these thresholds, and those beside it."""


# --- the table that is written down ----------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A row of the table in the module's docstring."""

    before: str
    after: str
    when: str
    held: float

    def holds(self, used: int) -> bool:
        """Understand ``when``."""
        match = re.fullmatch(r"used (<|>=) (warning|critical|recover)(?: \(.*\))?", self.when)
        assert match, self.when
        bound: int = getattr(T, match[2])
        return used < bound if match[1] == "<" else used >= bound


def written_rows() -> list[Row]:
    """Read the table of a reStructuredText docstring: columns are where the rulers are."""
    lines = (breaker.__doc__ or "").splitlines()
    first, second, third = (n for n, line in enumerate(lines) if line.startswith("==="))
    columns = [match.span() for match in re.finditer("=+", lines[first])]
    assert second == first + 2, "one line of headings"
    rows = []
    for line in lines[second + 1 : third]:
        before, after, when, held = (line[start:end].strip() for start, end in columns)
        rows.append(Row(before, after, when, 0.0 if held == "-" else float(held.split(" s")[0])))
    return rows


def test_the_written_table_has_the_rules_and_no_other() -> None:
    assert [(row.before, row.after, row.held) for row in written_rows()] == [
        (rule.before.value, rule.after.value, rule.held) for rule in RULES
    ]


def test_the_written_conditions_are_those_of_the_rules() -> None:
    for row, rule in zip(written_rows(), RULES, strict=True):
        for used in SAMPLES:
            assert row.holds(used) == rule.when(used, T), f"{row} at {used}"


def test_the_text_below_the_table_names_its_times() -> None:
    below = (breaker.__doc__ or "").rpartition("===")[2]

    assert f"{PATIENCE_S:.0f} s" in below
    assert SETTLED_S < PATIENCE_S


def test_every_state_can_be_reached_and_left() -> None:
    assert set(State) == {rule.before for rule in RULES} == {rule.after for rule in RULES}


# --- each row --------------------------------------------------------------------------------


def in_state(state: State, used: int, *, now: float = 0.0) -> Breaker:
    """Return a breaker that has just entered a state, with a sample under which it stays."""
    machine = Breaker(T)
    machine.state = state
    assert machine.observe(used, now=now) == []
    return machine


@dataclass(frozen=True)
class Way:
    """Samples on which a rule fires: one under which the state stays, then the one that counts."""

    rule: Rule
    quiet: int
    used: int

    @override
    def __str__(self) -> str:
        return f"{self.rule.before}-{self.rule.after}-from-{self.quiet}-to-{self.used}"


WAYS = [
    Way(RULES[0], T.warning - 1, T.warning),
    Way(RULES[0], 0, T.critical - 1),
    Way(RULES[1], T.warning, T.critical),
    Way(RULES[1], T.critical - 1, 10**12),
    Way(RULES[2], T.recover, T.recover - 1),
    Way(RULES[2], T.critical - 1, 0),
    Way(RULES[3], T.critical, T.recover - 1),
    Way(RULES[3], T.critical, 0),
    Way(RULES[4], T.critical, T.critical - 1),
    Way(RULES[4], T.critical, T.recover),
    Way(RULES[5], T.critical - 1, T.critical),
    Way(RULES[5], 0, T.critical),
    Way(RULES[6], T.recover, T.recover - 1),
    Way(RULES[6], T.critical - 1, 0),
]
each_way = pytest.mark.parametrize("way", WAYS, ids=str)
each_way_that_waits = pytest.mark.parametrize("way", [w for w in WAYS if w.rule.held], ids=str)


def test_each_rule_is_tried() -> None:
    # The last is reached only from samples that hold it from the start: below.
    assert set(RULES[:-1]) == {way.rule for way in WAYS}


@each_way
def test_a_rule_fires_when_its_condition_has_held(way: Way) -> None:
    machine = in_state(way.rule.before, way.quiet)
    first, due = 10.0, 10.0 + way.rule.held
    if way.rule.held:
        assert machine.observe(way.used, now=first) == []
    transitions = machine.observe(way.used, now=due)

    assert transitions == [Transition(way.rule.before, way.rule.after, way.used, due)]
    assert machine.state is way.rule.after


@each_way_that_waits
def test_it_does_not_fire_a_moment_early(way: Way) -> None:
    machine = in_state(way.rule.before, way.quiet)
    machine.observe(way.used, now=10.0)

    assert machine.observe(way.used, now=10.0 + way.rule.held - 0.001) == []
    assert machine.state is way.rule.before


@each_way_that_waits
def test_one_sample_that_disagrees_starts_the_time_anew(way: Way) -> None:
    machine = in_state(way.rule.before, way.quiet)
    held = way.rule.held
    machine.observe(way.used, now=10.0)
    machine.observe(way.quiet, now=10.0 + held / 2)
    machine.observe(way.used, now=11.0 + held / 2)

    assert machine.observe(way.used, now=11.0 + held / 2 + held - 0.001) == []
    assert len(machine.observe(way.used, now=11.0 + held / 2 + held)) == 1


@pytest.mark.parametrize("used", [T.recover, T.warning, T.critical - 1])
def test_a_half_open_breaker_closes_after_a_while_whatever_is_in_use(used: int) -> None:
    machine = in_state(HALF_OPEN, used)

    assert machine.observe(used, now=PATIENCE_S - 0.001) == []

    transitions = machine.observe(used, now=PATIENCE_S)

    assert (transitions[0].before, transitions[0].after) == (HALF_OPEN, CLOSED)
    assert machine.state is (CLOSED if used < T.warning else WARNING)


@pytest.mark.parametrize(
    ("state", "used"),
    [
        (CLOSED, 0),
        (CLOSED, T.recover),
        (CLOSED, T.warning - 1),
        (WARNING, T.recover),
        (WARNING, T.warning),
        (WARNING, T.critical - 1),
        (OPEN, T.critical),
        (OPEN, 10**12),
    ],
)
def test_a_state_that_no_rule_leaves_stays_for_ever(state: State, used: int) -> None:
    machine = in_state(state, used)

    assert [machine.observe(used, now=float(day) * 86400) for day in range(1, 100)] == [[]] * 99
    assert machine.state is state


# --- several in one sample, and the way round ------------------------------------------------


def test_it_starts_closed() -> None:
    assert Breaker(T).state is CLOSED


def test_a_flood_passes_through_warning_in_one_sample() -> None:
    assert Breaker(T).observe(T.critical, now=7.0) == [
        Transition(CLOSED, WARNING, T.critical, 7.0),
        Transition(WARNING, OPEN, T.critical, 7.0),
    ]


def test_what_closes_above_warning_says_so_in_the_same_sample() -> None:
    machine = in_state(HALF_OPEN, T.warning)

    assert machine.observe(T.warning, now=PATIENCE_S) == [
        Transition(HALF_OPEN, CLOSED, T.warning, PATIENCE_S),
        Transition(CLOSED, WARNING, T.warning, PATIENCE_S),
    ]


def test_a_whole_cycle_with_a_sample_a_second() -> None:
    machine = Breaker(T)
    figures = [100, 210, 300, 520, 300] + [170] * 20
    seen = [
        (now, transition.after)
        for now, used in enumerate(figures)
        for transition in machine.observe(used, now=float(now))
    ]

    assert seen == [(1, WARNING), (3, OPEN), (8, HALF_OPEN), (11, CLOSED)]


def test_the_time_of_one_state_does_not_count_in_the_next() -> None:
    machine = in_state(OPEN, T.critical)
    machine.observe(0, now=1.0)

    assert [t.after for t in machine.observe(0, now=100.0)] == [HALF_OPEN]
    assert machine.observe(0, now=100.0 + SETTLED_S - 0.001) == []
    assert [t.after for t in machine.observe(0, now=100.0 + SETTLED_S)] == [CLOSED]


def test_both_times_run_at_once() -> None:
    machine = in_state(OPEN, T.critical)
    for now in range(1, 31):  # over and under recover in turn: never for long
        assert machine.observe(T.recover - now % 2, now=float(now)) == []

    assert [t.after for t in machine.observe(T.recover, now=31.0)] == [HALF_OPEN]


# --- thresholds ------------------------------------------------------------------------------


def test_the_settings_are_the_thresholds() -> None:
    derived = Thresholds.derive(warning_mb=200, critical_mb=500, recover_below=0.9)

    assert Thresholds(200 * MIB, 500 * MIB, 180 * MIB) == derived


@pytest.mark.parametrize(
    ("limit_mb", "warning_mb", "critical_mb"),
    [
        (10_000, 200, 500),
        (625, 200, 500),
        (500, 200, 400),
        (400, 200, 320),
        (300, 150, 240),
        (100, 50, 80),
    ],
)
def test_a_limit_lowers_what_it_requires_to_be_lower(
    limit_mb: int, warning_mb: int, critical_mb: int
) -> None:
    derived = Thresholds.derive(
        warning_mb=200, critical_mb=500, recover_below=0.9, limit=limit_mb * MIB
    )

    assert (warning_mb * MIB, critical_mb * MIB) == (derived.warning, derived.critical)
    assert int(warning_mb * MIB * 0.9) == derived.recover


@given(
    warning_mb=st.floats(1, 1e6),
    more=st.floats(1, 100),
    recover_below=st.floats(0.01, 0.99),
    limit=st.none() | st.integers(MIB, 2**50),
)
def test_derived_thresholds_keep_their_order(
    warning_mb: float, more: float, recover_below: float, limit: int | None
) -> None:
    derived = Thresholds.derive(
        warning_mb=warning_mb,
        critical_mb=warning_mb * more,
        recover_below=recover_below,
        limit=limit,
    )

    assert 0 < derived.recover < derived.warning <= derived.critical
    if limit is not None:
        assert derived.warning <= limit * WARNING_SHARE
        assert derived.critical <= limit * CRITICAL_SHARE


# --- anything at all -------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A figure, and the state after it."""

    now: float
    used: int
    transitions: list[Transition]
    state: State


thresholds = st.tuples(
    st.integers(2, 1000), st.integers(0, 1000), st.floats(0.01, 0.99, allow_nan=False)
).map(lambda t: Thresholds(t[0], t[0] + t[1], max(1, int(t[0] * t[2]))))


@st.composite
def runs(draw: st.DrawFn) -> tuple[Thresholds, list[Sample]]:
    """Drive a breaker with samples that like the thresholds, and steps that like the holds."""
    limits = draw(thresholds)
    edges = [limits.recover, limits.warning, limits.critical]
    used = st.integers(0, 2200) | st.sampled_from(edges) | st.sampled_from([e - 1 for e in edges])
    step = st.floats(0, 40) | st.sampled_from([0.0, 0.25, 1.0, SETTLED_S, PATIENCE_S])
    machine, now, samples = Breaker(limits), 0.0, []
    phases = st.tuples(used, st.lists(step, min_size=1, max_size=12))
    for figure, steps in draw(st.lists(phases, min_size=1, max_size=12)):
        for passing in steps:
            now += passing
            transitions = machine.observe(max(0, figure), now=now)
            samples.append(Sample(now, max(0, figure), transitions, machine.state))
    return limits, samples


def due(rule: Rule, limits: Thresholds, since_entry: list[Sample]) -> bool:
    """Decide from the record alone whether a rule has held for as long as it says."""
    since = inf
    for sample in reversed(since_entry):
        if not rule.when(sample.used, limits):
            break
        since = sample.now
    return since_entry[-1].now - since >= rule.held


@given(runs())
def test_each_transition_is_a_row_whose_condition_had_held_and_none_is_missed(
    run: tuple[Thresholds, list[Sample]],
) -> None:
    limits, samples = run
    state, entered = CLOSED, 0  # with which sample it was entered
    for index, sample in enumerate(samples):
        for transition in sample.transitions:
            assert state is transition.before, "the chain has no holes"
            assert (sample.used, sample.now) == (transition.used, transition.now)
            rows = [r for r in RULES if (r.before, r.after) == (state, transition.after)]
            assert any(due(row, limits, samples[entered : index + 1]) for row in rows)
            state, entered = transition.after, index
        assert sample.state is state
        left = [r for r in RULES if r.before is state]
        assert not any(due(row, limits, samples[entered : index + 1]) for row in left)


@given(runs())
def test_no_state_is_skipped(run: tuple[Thresholds, list[Sample]]) -> None:
    neighbours = {
        CLOSED: {WARNING},
        WARNING: {OPEN, CLOSED},
        OPEN: {HALF_OPEN},
        HALF_OPEN: {OPEN, CLOSED},
    }
    for sample in run[1]:
        for transition in sample.transitions:
            assert transition.after in neighbours[transition.before]


@given(runs())
def test_it_flaps_no_faster_than_the_hysteresis_allows(
    run: tuple[Thresholds, list[Sample]],
) -> None:
    last: dict[State, float] = {}
    for sample in run[1]:
        for transition in sample.transitions:
            # Every way back to a state leads through a rule that waits.
            entered_before = last.get(transition.after, -inf)
            assert transition.now - entered_before >= SETTLED_S
            if transition.after is CLOSED:
                assert transition.now - last.get(OPEN, -inf) >= 2 * SETTLED_S
            last[transition.after] = transition.now


@given(runs())
def test_what_is_decided_hangs_on_the_samples_alone(run: tuple[Thresholds, list[Sample]]) -> None:
    again = Breaker(run[0])

    assert [sample.transitions for sample in run[1]] == [
        again.observe(sample.used, now=sample.now) for sample in run[1]
    ]


@given(runs(), st.integers(1, 40))
def test_with_little_in_use_it_is_closed_in_a_quarter_of_a_minute(
    run: tuple[Thresholds, list[Sample]], interval_quarters: int
) -> None:
    machine, samples = Breaker(run[0]), run[1]
    for sample in samples:
        machine.observe(sample.used, now=sample.now)
    now, interval = samples[-1].now, interval_quarters / 4
    deadline = now + interval + 2 * (SETTLED_S + interval)
    while now < deadline:
        now += interval
        machine.observe(0, now=now)

    assert machine.state is CLOSED


# --- what counts -------------------------------------------------------------------------------

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("rss", "cgroup_used", "limit", "used"),
    [
        (10, None, None, 10),
        (10, None, 400, 10),
        # A limit that binds: what the cgroup uses counts as it is.
        (10, 5, 400, 10),
        (10, 50, 400, 50),
        # A large cgroup: the others in it are no business of ours,
        (15 * MIB, GIB, 16 * GIB, 15 * MIB),
        # until it leaves as little as the critical threshold does of our own.
        (15 * MIB, int(16 * GIB * CRITICAL_SHARE), 16 * GIB, 500 * MIB),
    ],
)
def test_a_cgroup_counts_as_far_as_it_gets_full(
    rss: int, cgroup_used: int | None, limit: int | None, used: int
) -> None:
    derived = Thresholds.derive(warning_mb=200, critical_mb=500, recover_below=0.9, limit=limit)

    assert used == bytes_used(rss=rss, cgroup_used=cgroup_used, limit=limit, thresholds=derived)


def test_a_limit_that_has_been_lowered_since_leaves_no_slack() -> None:
    assert 50 == bytes_used(rss=10, cgroup_used=50, limit=100, thresholds=T)
