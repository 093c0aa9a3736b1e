"""The host's memory: figures of both versions of cgroups and of psutil, and giving some back."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from broadcasterd.host.memory import MemoryProbe, Reading, release_free_memory

MIB = 1024 * 1024

V1_NO_LIMIT = "9223372036854771712\n"
"""What version 1 says where there is none, on a machine with pages of 4 KiB."""


class Machine:
    """Mount points and files of /proc, as a kernel would fill them."""

    def __init__(self, root: Path) -> None:
        self.cgroups = root / "cgroup"
        self.membership = root / "self"
        self.pressure = root / "pressure"

    def member_of(self, *lines: str) -> Machine:
        self.membership.write_text("".join(f"{line}\n" for line in lines))
        return self

    def cgroup(self, path: str, **files: object) -> Machine:
        """Fill in files; ``memory_max`` is ``memory.max``."""
        folder = self.cgroups / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            text = value if isinstance(value, str) else f"{value}\n"
            (folder / name.replace("_", ".", 1)).write_text(text)
        return self

    def probe(self) -> MemoryProbe:
        return MemoryProbe(cgroups=self.cgroups, membership=self.membership, pressure=self.pressure)

    def read(self) -> Reading:
        return self.probe().read()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without any of these files."""
    return Machine(tmp_path)


def stat(**figures: int) -> str:
    """Return a memory.stat with these figures among others."""
    others = {"anon": 111, "file": 222, "kernel": 333, "slab": 444, "workingset_refault_file": 5}
    return "".join(f"{name} {value}\n" for name, value in (others | figures).items())


def psi(some: object, full: object = "9.99") -> str:
    return "".join(
        f"{kind} avg10={value} avg60=0.00 avg300=0.00 total=123\n"
        for kind, value in (("some", some), ("full", full))
    )


# --- no cgroup to speak of -------------------------------------------------------------------


def test_without_any_of_the_files_there_is_the_resident_set(machine: Machine) -> None:
    reading = machine.read()

    assert reading.rss > MIB
    assert Reading(reading.rss) == reading


def test_a_cgroup_without_a_limit_does_not_count(machine: Machine) -> None:
    machine.member_of("0::/app").cgroup(
        "app", memory_max="max\n", memory_high="max\n", memory_current=10**15, memory_stat=stat()
    )

    assert (None, None) == limits(machine.read())


def limits(reading: Reading) -> tuple[int | None, int | None]:
    return reading.cgroup_used, reading.cgroup_limit


def test_version_1_without_a_limit_does_not_count(machine: Machine) -> None:
    machine.member_of("4:memory:/app", "0::/").cgroup(
        "memory/app", memory_limit_in_bytes=V1_NO_LIMIT, memory_usage_in_bytes=5, memory_stat=stat()
    )

    assert (None, None) == limits(machine.read())


# --- version 2 -------------------------------------------------------------------------------


def test_version_2(machine: Machine) -> None:
    machine.member_of("0::/app.slice/us.service").cgroup(
        "app.slice/us.service",
        memory_max=300 * MIB,
        memory_high="max\n",
        memory_current=120 * MIB,
        memory_stat=stat(inactive_file=10 * MIB, active_file=20 * MIB),
    )

    assert (90 * MIB, 300 * MIB) == limits(machine.read())


@pytest.mark.parametrize(
    ("maximum", "high", "expected"),
    [
        ("max\n", f"{250 * MIB}\n", 250),
        (f"{300 * MIB}\n", f"{250 * MIB}\n", 250),
        (f"{200 * MIB}\n", f"{250 * MIB}\n", 200),
    ],
)
def test_the_tighter_of_both_limits_counts(
    maximum: str, high: str, expected: int, machine: Machine
) -> None:
    machine.member_of("0::/us").cgroup(
        "us", memory_max=maximum, memory_high=high, memory_current=1, memory_stat=stat()
    )

    assert expected * MIB == machine.read().cgroup_limit


@pytest.mark.parametrize("tightest", ["a", "a/b", "a/b/c"])
def test_of_nested_limits_the_tightest_counts_with_what_is_used_there(
    tightest: str, machine: Machine
) -> None:
    machine.member_of("0::/a/b/c")
    for used, path in enumerate(["a", "a/b", "a/b/c"], start=1):
        machine.cgroup(
            path,
            memory_max=100 if path == tightest else 200,
            memory_current=used,
            memory_stat=stat(),
        )

    assert (tightest.count("/") + 1, 100) == limits(machine.read())


def test_a_limit_of_the_root_that_a_container_sees_counts(machine: Machine) -> None:
    machine.member_of("0::/").cgroup(
        "", memory_max=64 * MIB, memory_current=32 * MIB, memory_stat=stat()
    )

    assert (32 * MIB, 64 * MIB) == limits(machine.read())


def test_a_path_that_only_the_host_sees_leads_to_what_is_mounted(machine: Machine) -> None:
    machine.member_of("0::/docker/0123abcd").cgroup(
        "", memory_max=64 * MIB, memory_current=32 * MIB, memory_stat=stat()
    )

    assert (32 * MIB, 64 * MIB) == limits(machine.read())


def test_nothing_above_the_mount_point_counts(machine: Machine) -> None:
    machine.member_of("0::/us").cgroup("us", memory_max="max\n")
    machine.cgroup("..", memory_max=1, memory_current=1, memory_stat=stat())

    assert (None, None) == limits(machine.read())


def test_a_colon_in_the_path_is_part_of_it(machine: Machine) -> None:
    machine.member_of("0::/a:b").cgroup("a:b", memory_max=64, memory_current=32, memory_stat=stat())

    assert (32, 64) == limits(machine.read())


# --- version 1, and both at once -------------------------------------------------------------


def test_version_1(machine: Machine) -> None:
    machine.member_of("5:cpu,cpuacct:/elsewhere", "4:memory:/us", "1:name=systemd:/us").cgroup(
        "memory/us",
        memory_limit_in_bytes=300 * MIB,
        memory_usage_in_bytes=120 * MIB,
        memory_stat=stat(
            inactive_file=1, active_file=2, total_inactive_file=10 * MIB, total_active_file=20 * MIB
        ),
    )

    assert (90 * MIB, 300 * MIB) == limits(machine.read())


def test_version_1_with_several_controllers_in_a_hierarchy(machine: Machine) -> None:
    machine.member_of("4:cpu,memory:/us").cgroup(
        "memory/us", memory_limit_in_bytes=64, memory_usage_in_bytes=32, memory_stat=stat()
    )

    assert (32, 64) == limits(machine.read())


def test_a_controller_that_only_sounds_like_memory_is_another(machine: Machine) -> None:
    machine.member_of("4:memoryless:/us").cgroup(
        "memory/us", memory_limit_in_bytes=64, memory_usage_in_bytes=32, memory_stat=stat()
    )

    assert (None, None) == limits(machine.read())


def test_nested_limits_of_version_1(machine: Machine) -> None:
    machine.member_of("4:memory:/a/b").cgroup(
        "memory/a", memory_limit_in_bytes=100, memory_usage_in_bytes=50, memory_stat=stat()
    )
    machine.cgroup(
        "memory/a/b", memory_limit_in_bytes=V1_NO_LIMIT, memory_usage_in_bytes=5, memory_stat=stat()
    )

    assert (50, 100) == limits(machine.read())


def test_hybrid_where_version_1_has_the_memory(machine: Machine) -> None:
    machine.member_of("4:memory:/us", "0::/us").cgroup(
        "memory/us", memory_limit_in_bytes=100, memory_usage_in_bytes=50, memory_stat=stat()
    )
    machine.cgroup("unified/us", cgroup_procs="1\n")

    assert (50, 100) == limits(machine.read())


def test_hybrid_where_version_2_has_the_memory(machine: Machine) -> None:
    machine.member_of("4:cpu:/us", "0::/us").cgroup(
        "unified/us", memory_max=100, memory_current=50, memory_stat=stat()
    )

    assert (50, 100) == limits(machine.read())


# --- files that are missing or make no sense -------------------------------------------------


@pytest.mark.parametrize("line", ["", "4", "4:memory", "no sense", ":", "x:y:z", "\ufffd::"])
def test_a_membership_that_makes_no_sense_is_none(line: str, machine: Machine) -> None:
    machine.member_of(line, "0::/us").cgroup(
        "us", memory_max=100, memory_current=50, memory_stat=stat()
    )

    assert (50, 100) == limits(machine.read())


def test_a_membership_that_is_no_text_is_none(machine: Machine) -> None:
    machine.membership.write_bytes(b"0::/\xff\n")

    assert (None, None) == limits(machine.read())


@pytest.mark.parametrize("limit", ["", "\n", "-1\n", "0\n", "lots\n", "12 MB\n", "0x10\n"])
def test_a_limit_that_makes_no_sense_is_none(limit: str, machine: Machine) -> None:
    machine.member_of("0::/us").cgroup(
        "us", memory_max=limit, memory_current=50, memory_stat=stat()
    )

    assert (None, None) == limits(machine.read())


def test_without_a_figure_of_what_is_used_the_limit_still_stands(machine: Machine) -> None:
    machine.member_of("0::/us").cgroup("us", memory_max=100 * MIB)
    reading = machine.read()

    assert (None, 100 * MIB) == limits(reading)


@pytest.mark.parametrize("broken", [{"memory_current": "??"}, {"memory_stat": "active_file ?"}])
def test_a_figure_that_makes_no_sense_is_none(broken: dict[str, str], machine: Machine) -> None:
    machine.member_of("0::/us").cgroup(
        "us", **{"memory_max": 100, "memory_current": 50, "memory_stat": stat(), **broken}
    )

    assert (None, 100) == limits(machine.read())


def test_a_cgroup_that_goes_away_and_comes_back_is_read_again(machine: Machine) -> None:
    machine.member_of("0::/us").cgroup("us", memory_max=100, memory_current=50, memory_stat=stat())
    probe = machine.probe()
    (machine.cgroups / "us/memory.current").unlink()

    assert (None, 100) == limits(probe.read())

    machine.cgroup("us", memory_current=60)

    assert (60, 100) == limits(probe.read())


# --- what counts -----------------------------------------------------------------------------


# --- stalls ----------------------------------------------------------------------------------


def test_stalls_are_those_of_the_system_without_a_cgroup(machine: Machine) -> None:
    machine.pressure.write_text(psi("1.25"))

    assert 1.25 == machine.read().stalled


def test_stalls_are_those_of_the_cgroup_where_it_has_the_figure(machine: Machine) -> None:
    machine.pressure.write_text(psi("1.25"))
    machine.member_of("0::/us").cgroup(
        "us", memory_max=100, memory_current=50, memory_stat=stat(), memory_pressure=psi("40.00")
    )

    assert 40.0 == machine.read().stalled


def test_stalls_are_those_of_the_system_where_the_cgroup_has_no_figure(machine: Machine) -> None:
    machine.pressure.write_text(psi("1.25"))
    machine.member_of("0::/us").cgroup("us", memory_max=100, memory_current=50, memory_stat=stat())

    assert 1.25 == machine.read().stalled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "full avg10=1.00 avg60=0.00 avg300=0.00 total=0\n",
        "some\n",
        "some avg10\n",
        "some avg10=\n",
        "some avg10=much avg60=0.00\n",
        "some avg60=0.00\n",
        "\n\n",
        "some a=b=c\n",
    ],
)
def test_a_pressure_file_that_makes_no_sense_is_none(text: str, machine: Machine) -> None:
    machine.pressure.write_text(text)

    assert machine.read().stalled is None


# --- this process ----------------------------------------------------------------------------


def test_the_resident_set_is_that_of_this_process() -> None:
    before = psutil.Process().memory_info().rss
    reading = MemoryProbe().read()
    after = psutil.Process().memory_info().rss

    assert before <= reading.rss <= after
    if reading.cgroup_limit is not None:
        assert reading.cgroup_limit > 0
        assert reading.cgroup_used is None or reading.cgroup_used > 0


def test_reading_opens_nothing_that_it_does_not_close() -> None:
    probe = MemoryProbe()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 (names are enough)
    for _ in range(100):
        probe.read()

    assert before == os.listdir("/proc/self/fd")  # noqa: PTH208 (likewise)


WITHOUT_DESCRIPTORS = """
import os, resource
from broadcasterd.host.memory import MemoryProbe

probe = MemoryProbe()
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
try:
    while True:
        os.dup(0)
except OSError:
    print(probe.read().rss, probe.read().rss)
"""


def test_memory_is_read_also_when_no_descriptor_is_left() -> None:
    assert all(map(int, fresh_process(WITHOUT_DESCRIPTORS).split()))


# --- giving memory back ----------------------------------------------------------------------

FREE_WITHOUT_AND_WITH_RELEASE = """
import gc, os
from broadcasterd.host.memory import MemoryProbe, release_free_memory

probe = MemoryProbe()
frames = [bytes(2048) for _ in range(40_000)]
kept = frames[::400]  # all along the heap, as what is still in use always is
full = probe.read().rss
del frames
gc.collect()
freed = probe.read().rss
release_free_memory(thorough=True)
print(full, freed, probe.read().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim(3) is glibc's")
def test_freed_memory_goes_back_to_the_kernel() -> None:
    full, freed, released = map(int, fresh_process(FREE_WITHOUT_AND_WITH_RELEASE).split())

    assert freed > full - 20 * MIB, "free(3) alone keeps it: without that the test shows nothing"
    assert released < full - 60 * MIB, "of the 78 MiB that were freed"


GARBAGE = """
import gc
from broadcasterd.host.memory import release_free_memory

class Node:
    pass

gc.disable()
before = len([o for o in gc.get_objects() if isinstance(o, Node)])
for _ in range(100):
    node = Node()
    node.itself = node
del node
release_free_memory(thorough=True)
print(before, len([o for o in gc.get_objects() if isinstance(o, Node)]))
"""


def test_what_is_left_in_cycles_is_collected_first() -> None:
    assert "0 0" == fresh_process(GARBAGE)


def fresh_process(script: str) -> str:
    """Run a script in a heap of its own, that holds nothing of other tests."""
    found = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert re.fullmatch(r"[0-9 ]+\n", found.stdout), found.stdout
    return found.stdout.strip()


def test_giving_back_again_does_no_harm() -> None:
    release_free_memory(thorough=True)
    release_free_memory(thorough=True)
