"""The last words of a test run: how many passed and failed, and the seconds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.suites import run_suite

pytestmark = pytest.mark.slow

LINE = re.compile(
    r"^(\d+) passed, (\d+) failed, (\d+) skipped: success rate ([\d.]+) %, [\d.]+ seconds$"
)


def last_words(directory: Path, suite: str) -> tuple[str, ...]:
    """Run a suite, and return the figures of the line before pytest's own last one."""
    done = run_suite(directory, suite, plugins=["tests.support.summary"])
    line = LINE.match(done.stdout.splitlines()[-2])
    assert line, done.stdout
    return line.groups()


def test_where_all_is_well_no_failures_are_told_too(tmp_path: Path) -> None:
    assert ("1", "0", "0", "100.0") == last_words(tmp_path, "def test_good(): pass")


def test_failures_and_errors_are_one_and_tell_on_the_rate(tmp_path: Path) -> None:
    suite = """\
import pytest
def test_good(): pass
def test_bad(): assert False
def test_broken(no_such_fixture): pass
@pytest.mark.skip
def test_left_out(): pass
"""
    assert ("1", "2", "1", "33.3") == last_words(tmp_path, suite)
