"""The memory of this process and its limit, as the kernel counts them; a way to give some back.

The cgroup counts the kernel's socket buffers, which RSS does not. Both versions of the hierarchy
are read (cgroups(7)); the tightest of nested limits counts.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_UNLIMITED_BYTES = 2**60  # version 1 says "no limit" with a number next to 2**63


@dataclass(frozen=True, slots=True)
class Reading:
    """The figures of one look, in bytes; ``None`` where there is no such figure.

    Attributes:
        rss: the resident set of this process.
        cgroup_used: the use of the limited cgroup, without the page cache.
        cgroup_limit: its limit.
        stalled: percent of the last 10 s in which some task waited for memory (PSI).

    """

    rss: int
    cgroup_used: int | None = None
    cgroup_limit: int | None = None
    stalled: float | None = None


@dataclass(frozen=True, slots=True)
class _Cgroup:
    """A limited cgroup, and the names that its version has for things."""

    limit: int
    usage: Path
    stat: Path
    cache_fields: frozenset[str]

    def used(self) -> int:
        usage = int(self.usage.read_text())
        for line in self.stat.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in self.cache_fields:
                usage -= int(value)
        return usage


class MemoryProbe:
    """Reads the figures of this process and, where one limits it, of its cgroup.

    Args:
        cgroups: where the hierarchies are mounted.
        membership: says which cgroup this process is in.
        pressure: the system's figure, where the cgroup has none.

    """

    def __init__(
        self,
        *,
        cgroups: Path = Path("/sys/fs/cgroup"),
        membership: Path = Path("/proc/self/cgroup"),
        pressure: Path = Path("/proc/pressure/memory"),
    ) -> None:
        self._process = psutil.Process()
        limited = list(_limited_cgroups(cgroups, membership))
        self._cgroup = min(limited, key=lambda cgroup: cgroup.limit, default=None)
        own = self._cgroup and self._cgroup.usage.with_name("memory.pressure")
        self._pressure = own if own and own.is_file() else pressure
        self._spare = _take_descriptor()

    def read(self) -> Reading:
        """Return the figures of this moment; takes some 50 µs.

        A descriptor is kept for it: memory is looked at also when connections hold all the others.
        """
        with self._descriptor():
            return self._read()

    @contextmanager
    def _descriptor(self) -> Iterator[None]:
        if self._spare is not None:
            os.close(self._spare)
        try:
            yield
        finally:
            self._spare = _take_descriptor()

    def _read(self) -> Reading:
        rss = int(self._process.memory_info().rss)
        stalled = _stalled(self._pressure)
        if self._cgroup is None:
            return Reading(rss, stalled=stalled)
        try:
            used = self._cgroup.used()
        except (OSError, ValueError):  # the cgroup was moved or removed under us
            return Reading(rss, None, self._cgroup.limit, stalled)
        return Reading(rss, used, self._cgroup.limit, stalled)


def _take_descriptor() -> int | None:
    with suppress(OSError):
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return None


def release_free_memory(*, thorough: bool) -> None:
    """Collect the cycles that requests left, and give freed pages to the kernel: some 20 ms.

    Pages are given back by malloc_trim(3), where libc has it.

    Args:
        thorough: look at all objects, not only at the young, and give up the interpreter's own free
            lists. That takes 20 ms more for each thousand sessions.

    """
    gc.collect(2 if thorough else 1)
    if _malloc_trim is not None:
        _malloc_trim(0)


def _limited_cgroups(cgroups: Path, membership: Path) -> Iterator[_Cgroup]:
    for controllers, path in _memberships(membership):
        if controllers == "":
            roots = [cgroups, cgroups / "unified"]
            limits, usage = ["memory.max", "memory.high"], "memory.current"
            cache = frozenset({"inactive_file", "active_file"})
        elif "memory" in controllers.split(","):
            roots = [cgroups / "memory"]
            limits, usage = ["memory.limit_in_bytes"], "memory.usage_in_bytes"
            cache = frozenset({"total_inactive_file", "total_active_file"})
        else:
            continue
        for root in roots:
            own = root / path.lstrip("/")
            for level in (own, *own.parents):
                if not level.is_relative_to(root):
                    break
                found = [limit for name in limits if (limit := _limit(level / name))]
                if found:
                    yield _Cgroup(min(found), level / usage, level / "memory.stat", cache)


def _memberships(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the controllers and the path of each cgroup: ``4:memory:/a/path``."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, found, rest = line.partition(":")
        controllers, also_found, path = rest.partition(":")
        if found and also_found:
            yield controllers, path


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
        limit = _UNLIMITED_BYTES if text == "max" else int(text)
    except (OSError, ValueError):
        return None
    return limit if 0 < limit < _UNLIMITED_BYTES else None


def _stalled(file: Path) -> float | None:
    """Read ``some avg10=…`` of a pressure file."""
    try:
        for line in file.read_text().splitlines():
            kind, *fields = line.split()
            if kind == "some":
                return float(dict(field.split("=") for field in fields)["avg10"])
    except (OSError, ValueError, KeyError):
        pass
    return None


def _find_malloc_trim() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


_malloc_trim = _find_malloc_trim()
