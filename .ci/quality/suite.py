"""The tests: runs pytest, and reads the report that it writes (JUnit's XML)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from quality.processes import QualityError
from quality.sections import Outcomes, success_rate
from quality.trees import Tree

STRESS = "tests/integration/test_memory_concurrency_stress.py"

WITHIN_S = 2 * 3600.0
"""What hangs so that not even its time limit ends it."""

HUNG = re.compile(r"not done after [\d.]+ s|Timeout \(?>")
"""What a test fails with that its time limit ended: tests/support/timelimit.py, pytest-timeout."""

TIME_LIMIT = re.compile(r"^timeout *= *\"?\d", re.MULTILINE)
SHOWN_FAILURES = 20


def outcomes_of(cases: Iterable[ET.Element], *, seconds: float, has_time_limit: bool) -> Outcomes:
    """Count what became of the tests of one run.

    Args:
        cases: the elements ``testcase`` of the report. One that fails twice is there twice.
        seconds: how long all took.
        has_time_limit: whether a test that hangs is ended.

    """
    tests: dict[str, dict[str, ET.Element]] = {}
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        tests.setdefault(name, {}).update((outcome.tag, outcome) for outcome in case)
    failures = {
        name: failure
        for name, tags in tests.items()
        if (failure := tags.get("failure", tags.get("error"))) is not None
    }
    skipped = sum("skipped" in tags for name, tags in tests.items() if name not in failures)
    passed = len(tests) - skipped - len(failures)
    hung = [each for each in failures.values() if HUNG.search(f"{each.get('message')} {each.text}")]
    return Outcomes(
        passed=passed,
        failed=len(failures),
        skipped=skipped,
        hung=len(hung) if has_time_limit else None,
        success_rate=success_rate(passed, len(failures)),
        seconds=round(seconds, 1),
        failures=sorted(failures)[:SHOWN_FAILURES],
    )


def run_tests(tree: Tree, selection: str, part: str = "tests") -> Outcomes:
    """Run the tests of a tree: ``all``, ``fast`` for those that are not slow, or a path.

    Raises:
        QualityError: pytest could not run them.

    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = [
            f"--junitxml={report}",
            "--override-ini=junit_logging=no",
            "-p",
            "no:cacheprovider",
        ]
        command: list[str | Path] = [
            tree.python,
            "-m",
            "pytest",
            *options,
            *_selected(tree, selection),
        ]
        done = tree.run(part, *command, within=WITHIN_S)
        # 0: all passed. 1: some failed. All others, such as 5 for no tests, are no result.
        if done.status not in {0, 1} or not report.exists():
            raise QualityError(f"pytest ended with status {done.status}: {done.last_line}")
        # Of our own pytest.
        cases = [*ET.parse(report).getroot().iter("testcase")]  # noqa: S314
    limited = TIME_LIMIT.search(tree.read("pyproject.toml")) is not None
    return outcomes_of(cases, seconds=done.seconds, has_time_limit=limited)


def _selected(tree: Tree, selection: str) -> Sequence[str]:
    side_by_side: list[str] = []
    if "\npytest-xdist==" in tree.read("requirements-dev.lock"):
        side_by_side = ["-n", os.environ.get("WORKERS", "3")]
    match selection:
        case "all":
            return side_by_side
        case "fast":
            quick = "--hypothesis-profile=fast"
            known = 'register_profile("fast"' in tree.read("tests/conftest.py")
            return [*side_by_side, "-m", "not slow", *([quick] if known else [])]
        case path:
            return [path]
