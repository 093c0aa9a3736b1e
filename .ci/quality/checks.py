"""What a tree's own checks say: lint, types, known vulnerabilities, coverage, hooks."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from quality.processes import Done, QualityError
from quality.sections import Check, Coverage, Hooks
from quality.trees import Tree

AUDIT = ".ci/audit.py"
HOOK_TESTS = "tests/integration/test_hook_validation_system.py"
HOOKS = "build/hooks.json"
COVERAGE = "build/coverage.json"
ALL_HOOKS = "all hooks"
"""What a commit of one file through all of them is called in build/hooks.json."""

UNREACHABLE = ("connection broken by", "(from versions: none)")
"""What pip says where the index cannot be reached, or there is none."""


def lint(tree: Tree) -> Check:
    """Run ``make lint``.

    Raises:
        QualityError: it cannot be run.

    """
    _require_tools(tree)
    return _check(tree.make("lint", "lint"))


def types(tree: Tree) -> Check:
    """Run ``make typecheck``.

    Raises:
        QualityError: it cannot be run.

    """
    return _check(tree.make("types", "typecheck"))


def security(tree: Tree) -> Check:
    """Run the audit; where the service of pip-audit cannot be reached, the index has to do.

    Raises:
        QualityError: it cannot be run, or not even the index can be reached.

    """
    _require_tools(tree)
    if not tree.has(AUDIT):
        raise QualityError(f"it has no {AUDIT}")
    done = tree.run("security", tree.python, AUDIT, "--index-suffices")
    said = [line.removeprefix("audit: ") for line in done.output.splitlines() if "audit: " in line]
    found = any("VULNERABLE" in line or line.startswith("bandit: ") for line in said)
    if done.status and not found and any(why in done.output for why in UNREACHABLE):
        raise QualityError("the package index cannot be reached")
    # Neither the names of all that its service does not know, nor the status once more.
    told = [line for line in said[:-1] if not line.startswith("NOT LOOKED UP")]
    return Check(passed=done.status == 0, seconds=_s(done), said="; ".join(told))


def coverage(tree: Tree) -> Coverage:
    """Read what coverage.py found when it was run last (``coverage json``).

    Raises:
        QualityError: it was not run.

    """
    path = tree.path / COVERAGE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Coverage)
    except OSError as error:
        raise QualityError(f"it has no {COVERAGE}") from error
    except msgspec.DecodeError as error:
        raise QualityError(f"{COVERAGE} is none of coverage.py: {error}") from error
    measured_at = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    return Coverage(
        percent=round(found.totals.percent_covered, 2),
        branches=found.meta.branch_coverage,
        measured_at=measured_at,
    )


def hooks(tree: Tree) -> Hooks:
    """Have the hooks prove themselves, one after another: their times count.

    Raises:
        QualityError: there are none, or they cannot be tried.

    """
    if not tree.has(HOOK_TESTS):
        raise QualityError(f"it has no {HOOK_TESTS}")
    _require_tools(tree)
    (tree.path / HOOKS).unlink(missing_ok=True)
    done = tree.run("hooks", tree.python, "-m", "pytest", "-p", "no:cacheprovider", HOOK_TESTS)
    try:
        found = msgspec.json.decode((tree.path / HOOKS).read_bytes(), type=_Hooks)
        [seconds] = [each.seconds for each in found.verdicts if each.what == ALL_HOOKS]
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise QualityError(f"there are no verdicts: {done.last_line}") from error
    if seconds is None:
        raise QualityError("a commit of one file was not timed")
    times = {each.what: round(each.seconds, 2) for each in found.verdicts if each.seconds}
    return Hooks(
        score=round(found.score, 1),
        right=sum(each.actual == each.expected for each in found.verdicts),
        verdicts=len(found.verdicts),
        wrong=[each.what for each in found.verdicts if each.actual != each.expected],
        seconds=round(seconds, 2),
        times=times,
    )


class _Totals(msgspec.Struct):
    percent_covered: float


class _Meta(msgspec.Struct):
    branch_coverage: bool = False


class _Coverage(msgspec.Struct):
    totals: _Totals
    meta: _Meta


class _Verdict(msgspec.Struct):
    what: str
    expected: str
    actual: str
    seconds: float | None


class _Hooks(msgspec.Struct):
    score: float
    verdicts: list[_Verdict]


def _require_tools(tree: Tree) -> None:
    if tree.has(".ci/requirements-tools.lock") and not tree.has(".venv-tools/bin"):
        raise QualityError("there is no .venv-tools: `make test-ready` makes it")


def _check(done: Done) -> Check:
    return Check(passed=done.status == 0, seconds=_s(done), said=done.last_line)


def _s(done: Done) -> float:
    return round(done.seconds, 1)
