"""The flake check runs a suite again and again, and says how to have a failure again."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest

from tests.support.container import SOON_S, until
from tests.support.suites import BARE
from tests.support.tools import ROOT

pytestmark = pytest.mark.slow

ADDED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["addopts"]
"""The options that any pytest here has."""


def check(directory: Path, suite: str, *, runs: int) -> subprocess.CompletedProcess[str]:
    """Check a suite of one file."""
    (directory / "test_suite.py").write_text(suite)
    command = [sys.executable, f"{ROOT}/.ci/flake_check.py", f"--runs={runs}", "--"]
    (directory / "pytest.ini").write_text(f"[pytest]\naddopts = {' '.join(ADDED)}\n")
    options = ["-p", "no:cacheprovider", f"--rootdir={directory}"]
    return subprocess.run(
        [*command, *options, str(directory)],
        env={**os.environ, **BARE},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_suite_that_never_fails_is_fine(tmp_path: Path) -> None:
    done = check(tmp_path, "def test_fine(): pass", runs=1)

    assert done.returncode == 0, done.stdout
    assert "nothing failed in 1 runs" == done.stdout.splitlines()[-1]


def test_a_failure_is_told_with_the_seed_of_its_order(tmp_path: Path) -> None:
    marker = tmp_path / "ran-once"
    suite = f"import pathlib\ndef test_once(): pathlib.Path({str(marker)!r}).mkdir()"

    done = check(tmp_path, suite, runs=2)

    [told] = [x for x in done.stdout.splitlines() if x.startswith("run 2 ")]
    assert done.returncode == 1
    assert "test_suite.py::test_once" in told
    assert f"--randomly-seed={told.partition('(seed ')[2].partition(',')[0]}" in done.stdout


def test_a_suite_that_cannot_run_is_a_failure(tmp_path: Path) -> None:
    done = check(tmp_path, "import nothing_of_this_name", runs=1)

    assert done.returncode == 1, done.stdout


def test_nothing_is_left_running_when_it_is_ended(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text("import time\ndef test_long(): time.sleep(600)")
    program = f"""\
import sys
sys.path.insert(0, {str(ROOT / ".ci")!r})
import flake_check
flake_check.BUSY = {{1}}
sys.argv[1:] = ["--runs=1", "--", "-s", "-p", "no:cacheprovider", {str(tmp_path)!r}]
flake_check.main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, **BARE}
    ) as checking:
        ours = psutil.Process(checking.pid)
        until(lambda: len(ours.children()) == 2)
        children = ours.children()
        checking.terminate()

    _, left = psutil.wait_procs(children, timeout=SOON_S)
    assert not left
    assert checking.returncode != 0
