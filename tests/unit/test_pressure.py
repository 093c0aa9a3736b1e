"""Pressure at the doors: the breaker between its samples, the early bell, the half-open share."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.breaker import PATIENCE_S, SETTLED_S, State, Thresholds, Transition
from broadcasterd.memory.pressure import EARLY_SAMPLE_SHARE, HALF_OPEN_SHARE, Pressure

T = Thresholds(warning=200, critical=500, recover=180)

CLOSED, WARNING, OPEN, HALF_OPEN = State.CLOSED, State.WARNING, State.OPEN, State.HALF_OPEN


class Daemon:
    """What the pressure is told of a daemon: a clock, and the bytes that it counted."""

    def __init__(self, thresholds: Thresholds | None = T) -> None:
        self.now = 1000.0
        self.counted = 0
        self.told: list[Transition] = []
        self.pressure = Pressure(
            thresholds,
            counted=lambda: self.counted,
            clock=lambda: self.now,
        )
        self.pressure.watchers.append(self.told.append)

    def sample(self, used: int, *, after: float = 1.0) -> None:
        """Let time pass, and sample."""
        self.now += after
        self.pressure.sample(used)

    def half_open(self) -> None:
        """Bring the breaker there."""
        self.sample(T.critical)
        self.sample(0)
        self.sample(0, after=SETTLED_S)
        assert self.pressure.state is HALF_OPEN

    def states(self) -> list[State]:
        """Return the states that were told of."""
        return [transition.after for transition in self.told]

    async def bell_rang(self) -> bool:
        """Take the bell's ring, if there was one."""
        with trio.move_on_after(1):
            await self.pressure.wait_for_growth()
            return True
        return False


@pytest.fixture
def daemon() -> Daemon:
    """Return a daemon with a breaker."""
    return Daemon()


# --- switched off ----------------------------------------------------------------------------


def test_without_a_breaker_everything_is_accepted() -> None:
    daemon = Daemon(None)
    daemon.sample(10**15)
    daemon.counted = 10**15

    assert daemon.pressure.state is None
    assert daemon.pressure.thresholds is None
    assert not daemon.pressure.refuses_publish()
    assert not daemon.pressure.refuses_more()
    assert not daemon.pressure.refuses_subscriber()
    assert [] == daemon.told


async def test_without_a_breaker_no_bell_rings(autojump_clock: trio.testing.MockClock) -> None:
    daemon = Daemon(None)
    daemon.counted = 10**15
    daemon.pressure.refuses_publish()

    assert not await daemon.bell_rang()


# --- what is refused in which state ----------------------------------------------------------


def test_before_the_first_sample_it_accepts(daemon: Daemon) -> None:
    assert daemon.pressure.state is CLOSED
    assert T == daemon.pressure.thresholds
    assert not daemon.pressure.refuses_publish()
    assert not daemon.pressure.refuses_subscriber()


def test_a_warning_refuses_nobody(daemon: Daemon) -> None:
    daemon.sample(T.critical - 1)

    assert daemon.pressure.state is WARNING
    assert not daemon.pressure.refuses_publish()
    assert not daemon.pressure.refuses_more()
    assert not daemon.pressure.refuses_subscriber()


def test_an_open_breaker_refuses_everyone(daemon: Daemon) -> None:
    daemon.sample(T.critical)

    assert all(daemon.pressure.refuses_publish() for _ in range(100))
    assert daemon.pressure.refuses_more()
    assert daemon.pressure.refuses_subscriber()


def test_of_a_half_open_one_exactly_a_share_passes(daemon: Daemon) -> None:
    daemon.half_open()
    passed = [not daemon.pressure.refuses_publish() for _ in range(10 * HALF_OPEN_SHARE)]

    assert 10 == sum(passed)
    assert passed == ([False] * (HALF_OPEN_SHARE - 1) + [True]) * 10


def test_a_half_open_one_stops_nobody_who_was_let_in(daemon: Daemon) -> None:
    daemon.half_open()

    assert not any(daemon.pressure.refuses_more() for _ in range(100))
    assert not daemon.pressure.refuses_subscriber()


def test_asking_for_more_takes_nothing_of_the_share(daemon: Daemon) -> None:
    daemon.half_open()
    passed = 0
    for _ in range(10 * HALF_OPEN_SHARE):
        daemon.pressure.refuses_more()
        passed += not daemon.pressure.refuses_publish()

    assert 10 == passed


# --- between two samples ---------------------------------------------------------------------


def test_growth_since_the_sample_opens_the_breaker_at_once(daemon: Daemon) -> None:
    daemon.counted = 50
    daemon.sample(100)
    daemon.counted = 50 + 400 - 1

    assert not daemon.pressure.refuses_publish()
    assert daemon.pressure.state is CLOSED

    daemon.counted += 1

    assert daemon.pressure.refuses_publish()
    assert daemon.pressure.state is OPEN
    assert daemon.told == [
        Transition(CLOSED, WARNING, 500, daemon.now),
        Transition(WARNING, OPEN, 500, daemon.now),
    ]


def test_one_that_was_let_in_opens_it_as_well(daemon: Daemon) -> None:
    daemon.sample(499)
    daemon.counted = 1

    assert daemon.pressure.refuses_more()
    assert [OPEN] == daemon.states()[1:]


def test_growth_opens_a_half_open_breaker(daemon: Daemon) -> None:
    daemon.half_open()
    daemon.counted = T.critical

    assert daemon.pressure.refuses_publish()
    assert daemon.pressure.state is OPEN


def test_the_next_sample_is_believed_again(daemon: Daemon) -> None:
    daemon.sample(100)
    daemon.counted = 300  # and yet the kernel says that nothing changed
    daemon.sample(100)

    assert not daemon.pressure.refuses_publish()

    daemon.counted += 399

    assert not daemon.pressure.refuses_publish()


def test_what_was_given_back_since_the_sample_is_no_growth(daemon: Daemon) -> None:
    daemon.counted = 450
    daemon.sample(499)
    daemon.counted = 100

    assert not daemon.pressure.refuses_publish()

    daemon.counted = 450

    assert not daemon.pressure.refuses_publish()

    daemon.counted = 451

    assert daemon.pressure.refuses_publish()


def test_each_transition_is_told_once(daemon: Daemon) -> None:
    daemon.counted = T.critical
    for _ in range(10):
        daemon.pressure.refuses_publish()
        daemon.pressure.refuses_more()
    daemon.sample(T.critical)
    daemon.sample(T.critical)

    assert [WARNING, OPEN] == daemon.states()

    daemon.counted = 0
    for _ in range(100):
        daemon.sample(0)
        daemon.pressure.refuses_publish()

    assert [WARNING, OPEN, HALF_OPEN, CLOSED] == daemon.states()


def test_looking_between_samples_never_closes_anything(daemon: Daemon) -> None:
    daemon.sample(T.critical)
    for _ in range(100):
        daemon.now += PATIENCE_S
        daemon.pressure.refuses_publish()

    assert daemon.pressure.state is OPEN


# --- the bell --------------------------------------------------------------------------------


async def test_fast_growth_asks_for_an_early_sample(
    daemon: Daemon, autojump_clock: trio.testing.MockClock
) -> None:
    daemon.sample(100)
    due = (T.critical - 100) // EARLY_SAMPLE_SHARE
    daemon.counted = due - 1
    daemon.pressure.refuses_publish()

    assert not await daemon.bell_rang()

    daemon.counted = due
    daemon.pressure.refuses_publish()

    assert await daemon.bell_rang()


async def test_a_bell_that_rang_often_is_answered_once(
    daemon: Daemon, autojump_clock: trio.testing.MockClock
) -> None:
    daemon.counted = T.critical // EARLY_SAMPLE_SHARE
    for _ in range(100):
        daemon.pressure.refuses_publish()

    assert await daemon.bell_rang()
    assert not await daemon.bell_rang()


async def test_after_a_sample_the_bell_is_quiet(
    daemon: Daemon, autojump_clock: trio.testing.MockClock
) -> None:
    daemon.counted = 200
    daemon.pressure.refuses_publish()

    assert await daemon.bell_rang()

    daemon.sample(200)
    daemon.pressure.refuses_publish()

    assert not await daemon.bell_rang()


async def test_the_bell_wakes_who_waits(
    daemon: Daemon, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    woken = trio.Event()

    async def wait() -> None:
        await daemon.pressure.wait_for_growth()
        woken.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()

    assert not woken.is_set()

    daemon.counted = T.critical
    daemon.pressure.refuses_publish()
    await trio.testing.wait_all_tasks_blocked()

    assert woken.is_set()


# --- anything at all -------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["sample", "publish", "more", "count"]),
        st.integers(0, 1000),
        st.floats(0, 40),
    ),
    max_size=60,
)


@given(steps)
def test_nothing_is_accepted_past_critical_and_the_telling_has_no_holes(
    run: list[tuple[str, int, float]],
) -> None:
    daemon = Daemon()
    used = counted = 0
    for what, figure, passing in run:
        daemon.now += passing
        match what:
            case "sample":
                daemon.pressure.sample(figure)
                used, counted = figure, daemon.counted
            case "count":
                daemon.counted = figure
            case "publish" | "more":
                grown = max(0, daemon.counted - counted)
                refused = (
                    daemon.pressure.refuses_publish()
                    if what == "publish"
                    else daemon.pressure.refuses_more()
                )
                if used + grown >= T.critical:
                    assert refused
                if daemon.pressure.state in {CLOSED, WARNING}:
                    assert not refused
    chain = [CLOSED, *daemon.states()]

    assert [transition.before for transition in daemon.told] == chain[:-1]
    assert daemon.pressure.state is chain[-1]


# --- other thresholds ------------------------------------------------------------------------


def test_the_next_sample_is_judged_by_other_thresholds(daemon: Daemon) -> None:
    daemon.sample(300)
    daemon.pressure.reconfigure(Thresholds(warning=20, critical=50, recover=18))

    assert WARNING is daemon.pressure.state, "nothing was sampled yet"

    daemon.sample(60)

    assert [WARNING, OPEN] == daemon.states()


def test_a_breaker_can_be_switched_off_and_on(daemon: Daemon) -> None:
    daemon.sample(T.critical)
    daemon.pressure.reconfigure(None)

    assert not daemon.pressure.refuses_publish()

    daemon.pressure.reconfigure(T)

    assert not daemon.pressure.refuses_publish()

    daemon.sample(T.critical)

    assert daemon.pressure.refuses_publish()
    assert [WARNING, OPEN, WARNING, OPEN] == daemon.states()


def test_before_the_first_sample_what_is_counted_counts() -> None:
    daemon = Daemon()
    daemon.counted = T.critical - 1

    assert 0 == daemon.pressure.excused
    assert not daemon.pressure.refuses_more()

    daemon.counted = T.critical

    assert daemon.pressure.refuses_more()


def test_what_is_excused_does_not_count() -> None:
    daemon = Daemon()
    daemon.pressure.sample(T.critical + 9, excused=10)

    assert daemon.states() == [WARNING]
    assert 10 == daemon.pressure.excused

    daemon.pressure.sample(T.critical + 10, excused=10)

    assert daemon.states() == [WARNING, OPEN]
