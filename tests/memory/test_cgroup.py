"""A cgroup with a limit: the thresholds keep below it, and the kernel never has to kill."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cgroup import MemoryCgroup, memory_cgroup
from tests.support.daemon import Daemon
from tests.support.flood import (
    ANSWER_S,
    CYCLE_S,
    MIB,
    client_of,
    flood,
    new_sessions,
    reading,
)

LIMIT_MB = 160
FLOOD_S = float(os.environ.get("BROADCASTERD_TEST_FLOOD_S", "0.5"))
EVENTS, EVENT_BYTES = 100, 8192
"""In each publication of the flood."""

ENOUGH = 2 * LIMIT_MB * MIB // EVENT_BYTES
"""Events: twice what the limit has room for. Beside other load, the warning may make room as fast
as publishers come: then nobody need be refused."""

REFUSALS = 200

Confined = tuple[Daemon, MemoryCgroup]


@contextmanager
def confined(directory: Path, **sections: Mapping[str, Any]) -> Iterator[Confined]:
    """Run a daemon in a cgroup of its own."""
    with memory_cgroup(LIMIT_MB * MIB) as cgroup:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "executable", cgroup.python(directory))
            daemon = Daemon.start(directory, **sections)
        try:
            assert daemon.pid in cgroup.members()
            yield daemon, cgroup
        finally:
            daemon.stop_cleanly()


@pytest.fixture(scope="module")
def as_it_comes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confined]:
    """Run one whose thresholds nobody has set."""
    with confined(tmp_path_factory.mktemp("confined")) as found:
        yield found


async def test_thresholds_keep_below_the_limit(as_it_comes: Confined) -> None:
    daemon, _ = as_it_comes
    async with client_of(daemon) as client:
        memory = (await client.health())["memory"]

    assert memory["cgroup_limit_mb"] == LIMIT_MB
    assert memory["critical_mb"] == pytest.approx(0.8 * LIMIT_MB, abs=0.1)
    assert memory["warning_mb"] == pytest.approx(0.5 * LIMIT_MB, abs=0.1)
    assert memory["used_mb"] >= memory["rss_mb"]


async def test_lower_thresholds_of_the_configuration_hold(tmp_path: Path) -> None:
    with confined(tmp_path, memory={"warning_mb": 70, "critical_mb": 90}) as (daemon, _):
        async with client_of(daemon) as client:
            memory = (await client.health())["memory"]

    assert (memory["warning_mb"], memory["critical_mb"]) == (70, 90)
    assert memory["cgroup_limit_mb"] == LIMIT_MB


async def test_a_flood_is_never_killed_and_never_even_reaches_the_limit(
    as_it_comes: Confined,
) -> None:
    daemon, cgroup = as_it_comes
    async with client_of(daemon) as client, reading(daemon, "live", count=3) as live:
        pid = cgroup.members()
        seen = await flood(
            daemon,
            new_sessions(events=EVENTS, size=EVENT_BYTES),
            publishers=8,
            seconds=FLOOD_S,
            refusals=REFUSALS,
            enough=ENOUGH,
        )
        await client.until_breaker("closed", within=CYCLE_S)
        accepted = await client.publish("live", "afterwards")
        for reader in live:
            await reader.until(lambda r: r.data, within=ANSWER_S)
        health = await client.health()

    assert cgroup.killed() == 0
    assert cgroup.reached() == 0
    assert cgroup.members() == pid == [daemon.pid]
    assert health["memory"]["used_mb"] < health["memory"]["warning_mb"]
    assert set(seen.answers) <= {200, 503}
    assert seen.answers[503] or seen.acknowledged >= ENOUGH, "that was no flood"
    assert accepted.status == 200
    for reader in live:
        assert reader.data == ["afterwards"]
