"""What tests measure goes into a file, from all workers; a figure over its bound is a failure."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time

import pytest

from tests.support.measured import cpu_ratio
from tests.support.suites import run_suite

SUITE = """
def test_one(measured): measured(1.23456, "writes", at_most=2)
def test_two(measured): measured(3, "times", at_most=2)
def test_three(): pass
"""
ONE = {"name": "one", "figure": 1.2346, "unit": "writes", "at_most": 2}
TWO = {"name": "two", "figure": 3, "unit": "times", "at_most": 2}


def run(directory: Path, *options: str) -> str:
    """Run the suite, with its figures in a directory; return what pytest says."""
    (directory / "conftest.py").write_text(
        "import pathlib\nimport tests.support.measured as plugin\n"
        f"plugin.FILE = pathlib.Path({str(directory / 'figures.json')!r})\n"
    )
    plugins = ["xdist", "tests.support.measured"]
    return run_suite(directory, SUITE, *options, plugins=plugins).stdout


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_figure_is_kept_and_one_over_its_bound_is_a_failure(
    workers: str, tmp_path: Path
) -> None:
    (tmp_path / "figures.json").write_text(json.dumps([{"name": "earlier"}, {"name": "one"}]))

    said = run(tmp_path, "-n", workers)

    assert "3 times, and at most 2 expected" in said
    assert "1 failed, 2 passed" in said
    assert [{"name": "earlier"}, ONE, TWO] == json.loads((tmp_path / "figures.json").read_text())


def test_a_ratio_says_how_many_times_as_much_the_work_takes() -> None:
    def take(seconds: float) -> None:
        until = process_time() + seconds
        while process_time() < until:
            pass

    assert 4 == pytest.approx(cpu_ratio(lambda: take(0.02), lambda: take(0.005)), rel=0.3)
