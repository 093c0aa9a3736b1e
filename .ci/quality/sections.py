"""The sections of a report, each with the words for it.

Times are seconds where a name does not say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from typing_extensions import override


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the tests. An error while one is set up or torn down is its failure.

    Attributes:
        hung: how many were ended by their time limit, and are failures; ``None`` where nothing
            ends a test that hangs.
        success_rate: passed, of those that ran.
        seconds: of the whole run, workers side by side.
        failures: names of those that failed, or of the first of them.

    """

    passed: int
    failed: int
    skipped: int
    hung: int | None
    success_rate: float
    seconds: float
    failures: Sequence[str]

    @override
    def __str__(self) -> str:
        ran = self.passed + self.failed
        rate = f"{100 * self.success_rate:.1f} %"
        return f"{self.passed} of {ran} passed ({rate}) in {self.seconds:.0f} s"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What a command found that looks at the sources; ``said`` is the gist of what it printed."""

    passed: bool
    seconds: float
    said: str

    @override
    def __str__(self) -> str:
        return ": ".join(filter(None, ["passed" if self.passed else "FAILED", self.said]))


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the source the tests run, by coverage.py, which was run at ``measured_at``."""

    percent: float
    branches: bool
    measured_at: str

    @override
    def __str__(self) -> str:
        kind = "branches and lines" if self.branches else "lines"
        return f"{self.percent:.1f} % of {kind}, of {self.measured_at}"


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts of the Git hooks.

    Attributes:
        score: of 100; see CONTRIBUTING.md.
        right: verdicts that are right, of
        verdicts: all of them.
        wrong: what the others are about.
        seconds: of a commit of one file through all hooks.
        times: of a commit through each hook alone.

    """

    score: float
    right: int
    verdicts: int
    wrong: Sequence[str]
    seconds: float
    times: dict[str, float]

    @override
    def __str__(self) -> str:
        right = f"{self.right} of {self.verdicts} right"
        return f"{self.seconds:.1f} s, {right}, score {self.score:.1f}"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How long GET /health took under the standard load, on the worse kind of connection."""

    subscribers: int
    events: int
    polls: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @override
    def __str__(self) -> str:
        return f"{self.p50_ms:.1f} ms p50, {self.p99_ms:.1f} ms p99"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon took under the standard load; the peak is the kernel's (VmHWM)."""

    subscribers: int
    events: int
    peak_mb: float
    end_mb: float
    warning_mb: float

    @override
    def __str__(self) -> str:
        return f"{self.peak_mb:.1f} MB at most"


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop watch recorded under the standard load.

    Attributes:
        records: of tasks that held the loop up.
        stuck: of these, the ones that no slowness of a machine explains.
        longest_ms: the longest that one held it up.
        max_lag_ms: the longest that anything waited, of the last minute.

    """

    records: int
    stuck: int
    longest_ms: float
    max_lag_ms: float

    @override
    def __str__(self) -> str:
        return f"{self.records} hold-ups, {self.longest_ms:.0f} ms at most"


class Deadlocks(msgspec.Struct, frozen=True, kw_only=True):
    """What hung: tests, by their time limit, and tasks of the daemon, by its loop watch."""

    tests: int
    tasks: int

    @classmethod
    def of(cls, runs: Sequence[Outcomes | None], loop: Loop | None) -> Deadlocks | None:
        """Sum up what hung; ``None`` where no test ran, or none that hangs would have been seen."""
        hung = [run.hung for run in runs if run is not None]
        known = [count for count in hung if count is not None]
        if not known or len(known) < len(hung):
            return None
        return cls(tests=sum(known), tasks=loop.stuck if loop else 0)

    @property
    def total(self) -> int:
        """All of them."""
        return self.tests + self.tasks

    @override
    def __str__(self) -> str:
        return f"{self.total} ({self.tests} tests, {self.tasks} tasks)"


def success_rate(passed: int, failed: int) -> float:
    """Return the share of those that ran; of none it is 0."""
    return passed / (passed + failed) if passed else 0.0
