"""What a tree's own checks say is read as they say it; what they do not say is not made up."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from quality import checks
from quality.processes import QualityError, run
from quality.trees import Tree
from tests.support.hooks import Result, Verdict


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a tree that has nothing."""
    return Tree(tmp_path, Path(sys.executable), tmp_path / "logs")


def write(tree: Tree, name: str, text: str) -> None:
    path = tree.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("check", [checks.lint, checks.types, checks.security, checks.hooks])
def test_what_a_tree_does_not_have_cannot_be_asked(check: object, tree: Tree) -> None:
    with pytest.raises(QualityError, match=r"it has no|no target"):
        check(tree)  # type: ignore[operator] # one of these


# --- make ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "passed"), [(0, True), (1, False)])
def test_a_target_passes_or_does_not(status: int, passed: bool, tree: Tree) -> None:  # noqa: FBT001 (a case of the table)
    write(tree, "Makefile", f"lint:\n\t@echo a finding\n\t@exit {status}\n")
    found = checks.lint(tree)

    assert passed is found.passed
    assert "a finding" in (tree.logs / "lint.log").read_text()


def test_without_the_tools_nothing_is_known(tree: Tree) -> None:
    write(tree, "Makefile", "lint:\n\texit 1\n")
    write(tree, ".ci/requirements-tools.lock", "")

    with pytest.raises(QualityError, match="make test-ready"):
        checks.lint(tree)


def test_what_takes_too_long_is_ended_and_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(QualityError, match=r"not done after 0\.1 s"):
        run(["sleep", "600"], directory=tmp_path, within=0.1)


# --- the audit -------------------------------------------------------------------------------


def audit(tree: Tree, status: int, *lines: str) -> None:
    said = "\n".join(lines)
    write(tree, ".ci/audit.py", f"print({said!r})\nraise SystemExit({status})")


def test_an_audit_says_what_it_looked_at_and_leaves_out_names(tree: Tree) -> None:
    audit(tree, 0, "audit: bandit found nothing", "audit: NOT LOOKED UP: trio", "audit: passed")
    found = checks.security(tree)

    assert (True, "bandit found nothing") == (found.passed, found.said)


def test_a_vulnerability_is_a_finding(tree: Tree) -> None:
    audit(tree, 1, "audit: trio is VULNERABLE: CVE-1", "audit: FAILED")
    found = checks.security(tree)

    assert (False, "trio is VULNERABLE: CVE-1") == (found.passed, found.said)


UNREACHABLE = (
    "audit: NOT LOOKED UP: trio",
    "audit: the index does NOT HAVE what is locked:",
    "ERROR: Could not find a version that satisfies the requirement trio (from versions: none)",
    "audit: FAILED",
)


def test_an_index_that_cannot_be_reached_is_no_finding(tree: Tree) -> None:
    audit(tree, 1, *UNREACHABLE)

    with pytest.raises(QualityError, match="the package index cannot be reached"):
        checks.security(tree)


def test_what_was_found_besides_is_a_finding_all_the_same(tree: Tree) -> None:
    audit(tree, 1, "audit: bandit: exec is used", *UNREACHABLE)

    assert not checks.security(tree).passed


# --- coverage --------------------------------------------------------------------------------


def test_the_coverage_is_that_of_coverage_py(tree: Tree) -> None:
    found = {
        "meta": {"format": 3, "version": "7.10.6", "branch_coverage": True},
        "files": {},
        "totals": {"covered_lines": 96, "percent_covered": 96.4321, "num_branches": 7},
    }
    write(tree, "build/coverage.json", json.dumps(found))
    coverage = checks.coverage(tree)

    assert (96.43, True) == (coverage.percent, coverage.branches)


@pytest.mark.parametrize(
    ("text", "why"), [(None, "it has no build/coverage"), ("{}", "none of coverage.py")]
)
def test_where_coverage_py_was_not_run_there_is_none(
    text: str | None, why: str, tree: Tree
) -> None:
    if text is not None:
        write(tree, "build/coverage.json", text)

    with pytest.raises(QualityError, match=why):
        checks.coverage(tree)


# --- hooks -----------------------------------------------------------------------------------


def found_by_hooks(*verdicts: Verdict) -> str:
    """Return what a validation leaves that comes to these verdicts."""
    result = Result(verdicts)
    return json.dumps({"score": result.score, **asdict(result)})


def prove_hooks(tree: Tree, *verdicts: Verdict) -> None:
    """Put a validation into the tree that comes to these verdicts."""
    found = found_by_hooks(*verdicts)
    write(tree, "build/.keep", "")
    validation = f"def test_it(): open('build/hooks.json', 'w').write({found!r})"
    write(tree, checks.HOOK_TESTS, validation)


@pytest.mark.slow
def test_the_verdicts_of_the_hooks_are_those_of_their_validation(tree: Tree) -> None:
    prove_hooks(
        tree,
        Verdict("bandit", "refused", "passed", 1.234, 2.0),
        Verdict("all hooks", "passed", "passed", 4.321, 5.0),
    )
    hooks = checks.hooks(tree)

    assert (1, 2, ["bandit"], 60.0) == (hooks.right, hooks.verdicts, hooks.wrong, hooks.score)
    assert (4.32, {"bandit": 1.23, "all hooks": 4.32}) == (hooks.seconds, hooks.times)


@pytest.mark.slow
def test_verdicts_of_an_earlier_run_are_none(tree: Tree) -> None:
    found = found_by_hooks(Verdict("all hooks", "passed", "passed", 4.0, 5.0))
    write(tree, "build/hooks.json", found)
    write(tree, checks.HOOK_TESTS, "def test_it(): raise OSError")

    with pytest.raises(QualityError, match="there are no verdicts"):
        checks.hooks(tree)
