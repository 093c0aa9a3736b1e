"""A hung test fails, says where it waits, cleans up, and the tests after it go on."""

from __future__ import annotations

import pytest

from tests.support.suites import run_suite
from tests.support.tools import ROOT

pytestmark = pytest.mark.slow

HUNG = """
import time
import pytest, trio

async def test_waits_in_trio(tmp_path_factory):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a_task_of_the_test)
        try:
            await trio.sleep_forever()
        finally:
            print("it has cleaned up")

async def a_task_of_the_test():
    await trio.sleep_forever()

async def test_swallows_the_cancellation():
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        pass

def test_blocks():
    time.sleep(1000)

async def test_is_fine():
    await trio.sleep(0)
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run the tests above, each of which may take half a second, and return what pytest prints."""
    directory = tmp_path_factory.mktemp("hung")
    options = ["-c", f"{ROOT}/pyproject.toml", "--timeout=0.5"]
    plugins = ["trio", "timeout", "tests.support.timelimit"]
    done = run_suite(directory, HUNG, *options, plugins=plugins)

    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "test", ["test_waits_in_trio", "test_swallows_the_cancellation", "test_blocks"]
)
def test_a_hung_test_fails_whatever_it_waits_for(output: str, test: str) -> None:
    [line] = [x for x in output.splitlines() if x.startswith("FAILED") and test in x]

    assert "not done after 0.5 s" in line


def test_a_hung_test_says_where_each_task_waits(output: str) -> None:
    assert "the stacks of all threads" in output
    assert "test_suite.py:9 test_waits_in_trio" in output
    assert "test_suite.py:14 a_task_of_the_test" in output


def test_a_hung_test_cleans_up_and_the_next_ones_run(output: str) -> None:
    assert "it has cleaned up" in output
    assert output.splitlines()[-1].count("3 failed, 1 passed") == 1
