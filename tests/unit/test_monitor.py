"""The monitor: one figure for the breaker and for the eye, thresholds from settings and cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from broadcasterd.config import Memory
from broadcasterd.host.memory import MemoryProbe, release_free_memory
from broadcasterd.memory.breaker import MIB, State, Thresholds
from broadcasterd.memory.trend import STEP_S
from broadcasterd.monitor import Monitor
from tests.support.broadcast import Recorder, drafts, make_hub, start_hub

GIB = 1024 * MIB


class Machine:
    """A cgroup whose figures the test sets."""

    def __init__(self, root: Path, *, limit: int | None) -> None:
        self._root = root
        (root / "self").write_text("0::/us\n")
        (root / "us").mkdir()
        (root / "us/memory.max").write_text("max" if limit is None else str(limit))
        (root / "us/memory.stat").write_text("")
        (root / "us/memory.pressure").write_text("some avg10=2.50 avg60=0 avg300=0 total=0\n")
        self.uses(0)

    def uses(self, size: int) -> None:
        (self._root / "us/memory.current").write_text(str(size))

    def probe(self) -> MemoryProbe:
        return MemoryProbe(cgroups=self._root, membership=self._root / "self")


def monitor(machine: Machine, **settings: object) -> Monitor:
    return Monitor(Memory(**settings), machine.probe())  # type: ignore[arg-type] # as it is meant


# --- thresholds ------------------------------------------------------------------------------


async def test_the_thresholds_are_the_settings(tmp_path: Path) -> None:
    found = monitor(Machine(tmp_path, limit=None), warning_mb=100, critical_mb=300).thresholds

    assert Thresholds(100 * MIB, 300 * MIB, 90 * MIB) == found


async def test_a_limit_of_the_cgroup_lowers_them(tmp_path: Path) -> None:
    found = monitor(Machine(tmp_path, limit=100 * MIB)).thresholds

    assert Thresholds(50 * MIB, 80 * MIB, 45 * MIB) == found


# --- what the supervisor is given ------------------------------------------------------------


async def test_the_supervisor_is_given_what_the_kernel_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path, limit=600 * MIB)
    host = monitor(machine, sample_interval=0.5).memory_host()

    assert 0.5 == host.sample_interval
    assert release_free_memory is host.release

    rss = machine.probe().read().rss
    machine.uses(590 * MIB)

    assert rss < 590 * MIB == host.used()


async def test_other_settings_reach_the_supervisor_too(tmp_path: Path) -> None:
    watch = monitor(Machine(tmp_path, limit=None), sample_interval=0.5)
    host = watch.memory_host()
    watch.reconfigure(Memory(warning_mb=100, critical_mb=300, sample_interval=2.0))

    assert Thresholds(100 * MIB, 300 * MIB, 90 * MIB) == watch.thresholds
    assert 2.0 == host.sample_interval


# --- the figures -----------------------------------------------------------------------------


async def test_the_figures_are_those_of_the_hub_and_the_host(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    machine = Machine(tmp_path, limit=600 * MIB)
    machine.uses(590 * MIB)
    watch = monitor(machine)
    hub = await start_hub(nursery)
    Recorder(hub.open("a"))
    await hub.open("b").publish(drafts("x" * 1000))
    await trio.sleep(90)
    vitals = watch.vitals(hub)

    assert (2, 1, 90.0) == (vitals.sessions, vitals.subscribers, vitals.uptime)
    assert hub.accounted_bytes == vitals.accounted_bytes > 1000
    assert (590 * MIB, 600 * MIB) == (vitals.used_bytes, vitals.cgroup_limit_bytes)
    assert MIB < vitals.rss_bytes < 590 * MIB
    assert 2.5 == vitals.stalled_percent
    assert watch.thresholds == vitals.thresholds
    assert (0.0, 0.0, 0) == (vitals.loop_lag, vitals.max_loop_lag, vitals.long_steps)
    assert not vitals.draining


async def test_a_hub_without_a_breaker_is_said_to_have_none(tmp_path: Path) -> None:
    watch = monitor(Machine(tmp_path, limit=None), breaker=False)

    assert watch.vitals(make_hub()).breaker is None


async def test_the_state_of_the_breaker_is_there(tmp_path: Path) -> None:
    watch = monitor(Machine(tmp_path, limit=None))
    hub = make_hub(thresholds=watch.thresholds)

    assert State.CLOSED is watch.vitals(hub).breaker

    hub.pressure.sample(10 * GIB)

    assert State.OPEN is watch.vitals(hub).breaker


async def test_a_drain_is_there(tmp_path: Path) -> None:
    hub = make_hub()
    hub.interrupts.drain()

    assert monitor(Machine(tmp_path, limit=None)).vitals(hub).draining


async def test_the_trend_is_that_of_the_samples(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    machine = Machine(tmp_path, limit=GIB)
    watch = monitor(machine, warning_mb=500, critical_mb=10_000)
    host = watch.memory_host()
    figures = [size_mb * 1000 for size_mb in (1, 2, 3, 4)]
    for size_mb in figures:
        machine.uses(size_mb * MIB)
        for _ in range(int(STEP_S)):
            host.used()
            await trio.sleep(1)
    vitals = watch.vitals(make_hub())

    assert figures == vitals.trend
    assert 6000 == pytest.approx(vitals.trend_per_minute)


async def test_looking_at_the_figures_adds_nothing_to_the_trend(tmp_path: Path) -> None:
    watch = monitor(Machine(tmp_path, limit=None))
    hub = make_hub()
    for _ in range(3):
        watch.vitals(hub)

    assert [] == watch.vitals(hub).trend
