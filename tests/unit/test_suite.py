"""What pytest reports of tests is counted: real runs of pytest over small suites."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quality.processes import QualityError
from quality.sections import Outcomes
from quality.suite import run_tests
from quality.trees import Tree
from tests.support.tools import ROOT

pytestmark = pytest.mark.slow

SUITE = """\
import time
import pytest

def test_good(): pass
@pytest.mark.parametrize("n", [1, 2])
def test_table(n): assert n == 1
@pytest.mark.skip
def test_skipped(): pass
@pytest.fixture
def broken():
    yield
    raise OSError
def test_torn_down(broken): pass
@pytest.mark.timeout(0.2)
def test_hung(): time.sleep(600)
@pytest.mark.timeout(0.2)
async def test_hung_in_trio():
    import trio
    await trio.sleep_forever()
"""


def run(directory: Path, suite: str) -> Outcomes:
    """Run a suite in a tree of its own, under this project's settings and time limit."""
    (directory / "test_it.py").write_text(suite)
    (directory / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (directory / "conftest.py").write_text('pytest_plugins = ["tests.support.timelimit"]\n')
    (directory / "tests").symlink_to(ROOT / "tests")
    tree = Tree(directory, Path(sys.executable), directory / "logs")
    return run_tests(tree, "test_it.py")


def test_whatever_becomes_of_a_test_is_counted_once(tmp_path: Path) -> None:
    tests = run(tmp_path, SUITE)

    assert (2, 4, 1) == (tests.passed, tests.failed, tests.skipped)
    assert 2 == tests.hung
    assert 2 / 6 == tests.success_rate
    assert [
        "test_it::test_hung",
        "test_it::test_hung_in_trio",
        "test_it::test_table[2]",
        "test_it::test_torn_down",
    ] == tests.failures


def test_where_no_test_can_be_run_there_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(QualityError, match="pytest ended with status"):
        run(tmp_path, "import nothing_of_this_name")
