"""Figures that tests measure: each goes into build/performance.json, and is held to a bound.

A pytest plugin. A figure travels with the report of its test, so that pytest-xdist brings it to the
process that writes the file. What a run does not measure keeps its figure of before.

A figure is a count, or a ratio of two measurements of one run: how fast the machine is, and what
else it does, is in none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest

from tests.support.tools import ROOT

FILE = ROOT / "build/performance.json"
PROPERTY = "figure"
ROUNDS = 5


class Measured:
    """Takes the figure of a test; the fixture ``measured``."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(self, figure: float, unit: str, *, at_most: float) -> None:
        """Keep a figure, and fail where it is over its bound."""
        name = self._item.name.removeprefix("test_")
        found = {"name": name, "figure": round(figure, 4), "unit": unit, "at_most": at_most}
        self._item.user_properties.append((PROPERTY, found))
        assert figure <= at_most, f"{figure:g} {unit}, and at most {at_most:g} expected"


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Return what takes the figure of this test."""
    return Measured(request.node)


def cpu_ratio(work: Callable[[], object], beside: Callable[[], object]) -> float:
    """Return how many times the CPU time of ``beside`` some work takes.

    They take turns, and of each the quickest counts: whatever disturbs one makes it longer.
    """
    shortest = [float("inf")] * 2
    for _ in range(ROUNDS):
        for place, each in enumerate((work, beside)):
            began = process_time()
            each()
            shortest[place] = min(shortest[place], process_time() - began)
    return shortest[0] / shortest[1]


# --- the file --------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Write the file, unless another process gets what this one measures."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(FILE))


class Writer:
    """Collects the figures of a run, and writes them at its end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._figures: dict[str, object] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the figures of a test that is over."""
        if report.when == "teardown":
            for key, value in report.user_properties:
                if key == PROPERTY and isinstance(value, dict):
                    self._figures[str(value["name"])] = value

    def pytest_sessionfinish(self) -> None:
        """Write all that was measured, beside what is there."""
        if self._figures:
            before = json.loads(self._file.read_text()) if self._file.exists() else []
            figures = {each["name"]: each for each in before} | self._figures
            self._file.parent.mkdir(exist_ok=True)
            self._file.write_text(json.dumps(sorted(figures.values(), key=_name), indent=1) + "\n")


def _name(figure: dict[str, object]) -> str:
    return str(figure["name"])
