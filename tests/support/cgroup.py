"""A memory cgroup of the test's own, with a limit that the kernel enforces.

Version 1 as a child of the test's own cgroup; version 2 as a child of the root, where alone
processes and controllers may be together.
"""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import lack

ROOT = Path("/sys/fs/cgroup")
REMOVE_S = 5.0


@dataclass(frozen=True, slots=True)
class MemoryCgroup:
    """A cgroup with a limit on memory, and the names that its version has for things."""

    path: Path
    version: int

    def killed(self) -> int:
        """Return how many of its processes the kernel killed for want of memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return self._fields(name)["oom_kill"]

    def reached(self) -> int:
        """Return how often the limit was reached: short of killing, but not by much."""
        if self.version == 2:
            return self._fields("memory.events")["max"]
        return int((self.path / "memory.failcnt").read_text())

    def members(self) -> list[int]:
        """Return the processes in it."""
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def python(self, directory: Path) -> str:
        """Return the path of an interpreter that runs in this cgroup from its first byte."""
        script = directory / "python"
        procs = shlex.quote(str(self.path / "cgroup.procs"))
        script.write_text(
            f'#!/bin/sh\necho $$ > {procs}\nexec {shlex.quote(sys.executable)} "$@"\n'
        )
        script.chmod(0o700)
        return str(script)

    def _fields(self, name: str) -> dict[str, int]:
        lines = (self.path / name).read_text().splitlines()
        return {field: int(value) for field, value in (line.split() for line in lines)}


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[MemoryCgroup]:
    """Make a cgroup, and remove it afterwards; skip the test, with the reason, if that cannot be.

    Where BROADCASTERD_TEST_STRICT is 1 the test fails instead.
    """
    cgroup, limit_file = _place()
    try:
        cgroup.path.mkdir()
        (cgroup.path / limit_file).write_text(str(limit_bytes))
    except OSError as error:
        if cgroup.path.is_dir():
            cgroup.path.rmdir()
        lack(f"a memory cgroup cannot be made: {error}")
    try:
        yield cgroup
    finally:
        _remove(cgroup)


def _place() -> tuple[MemoryCgroup, str]:
    name = f"broadcasterd-test-{uuid.uuid4().hex[:8]}"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        if "memory" in controllers.split(","):
            path = ROOT / "memory" / own.lstrip("/") / name
            return MemoryCgroup(path, version=1), "memory.limit_in_bytes"
    delegated = ROOT / "cgroup.subtree_control"
    if not delegated.is_file():
        lack(f"no memory controller is mounted under {ROOT}")
    if "memory" not in delegated.read_text().split():
        lack(f"{delegated} does not have the memory controller")
    return MemoryCgroup(ROOT / name, version=2), "memory.max"


def _remove(cgroup: MemoryCgroup) -> None:
    deadline = time.monotonic() + REMOVE_S
    while True:  # the kernel forgets an ended process a moment later
        try:
            cgroup.path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
