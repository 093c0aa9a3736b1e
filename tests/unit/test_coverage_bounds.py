"""How much the tests have to reach: of what decides more than of all together."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.scripts import loaded

Report = dict[str, dict[str, dict[str, dict[str, int]]]]


@pytest.fixture
def bounds() -> Iterator[ModuleType]:
    """Load the script."""
    with loaded("coverage_bounds.py") as module:
        yield module


def report(**covered: int) -> Report:
    """Return a report of files of 70 statements and 30 branches, of which so many are covered."""
    return {
        "files": {
            f"daemon/broadcasterd/{name.replace('__', '/')}.py": {
                "summary": {
                    "num_statements": 70,
                    "num_branches": 30,
                    "covered_lines": count - count // 4,
                    "covered_branches": count // 4,
                }
            }
            for name, count in covered.items()
        }
    }


def test_statements_and_branches_of_a_package_count_together(bounds: ModuleType) -> None:
    found = bounds.shares(report(core__wire=100, core__event=90, api__auth=50, config=80))

    assert {"core": 95.0, "api": 50.0, ".": 80.0, "all": 80.0} == {
        name: share.percent for name, share in found.items()
    }


def test_what_decides_has_a_bound_of_its_own(bounds: ModuleType) -> None:
    assert bounds.is_enough(bounds.shares(report(core__wire=95, api__auth=85)))
    assert not bounds.is_enough(bounds.shares(report(core__wire=94, api__auth=100)))


def test_all_together_have_a_bound(bounds: ModuleType) -> None:
    assert bounds.is_enough(bounds.shares(report(core__wire=100, cli__tail=80)))
    assert not bounds.is_enough(bounds.shares(report(core__wire=100, cli__tail=79)))


def test_a_package_below_its_bound_is_told_and_all_come_last(bounds: ModuleType) -> None:
    told = list(bounds.lines(bounds.shares(report(core__wire=94, api__auth=90))))

    assert ["api           90.00 %", "core          94.00 % of 95: too little"] == told[:2]
    assert ["all           92.00 % of 90"] == told[2:]
