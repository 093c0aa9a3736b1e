"""The reading order of CONTRIBUTING.md, held to the source: its files, their lengths, the order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SOURCES = PROJECT / "daemon/broadcasterd"
LINES_PER_MINUTE = 40
TOLERANCE = 0.1

TEXT = (PROJECT / "CONTRIBUTING.md").read_text()
ROWS = re.findall(r"^\| `([\w/.]+\.py)` \| (\d+) \| (\d+) \| (.*) \|$", TEXT, re.MULTILINE)
IDS = [name for name, *_ in ROWS]


def imported_by(name: str) -> set[str]:
    text = (SOURCES / name).read_text()
    modules = re.findall(r"^from broadcasterd\.([\w.]+) import", text, re.MULTILINE)
    return {f"{module.replace('.', '/')}.py" for module in modules}


def lines_of(name: str) -> int:
    return len((SOURCES / name).read_text().splitlines())


def minutes_for(lines: int) -> int:
    return round(lines / LINES_PER_MINUTE)


def test_the_table_is_found_and_names_no_file_twice() -> None:
    assert len(ROWS) > 1
    assert len(set(IDS)) == len(IDS)
    assert f"at {LINES_PER_MINUTE} lines a minute" in TEXT


@pytest.mark.parametrize(("name", "lines", "_minutes", "purpose"), ROWS, ids=IDS)
def test_a_file_is_about_as_long_as_the_table_says(
    name: str, lines: str, _minutes: str, purpose: str
) -> None:
    actual = lines_of(name)

    row = f"| `{name}` | {actual} | {minutes_for(actual)} | {purpose} |"
    assert int(lines) == pytest.approx(actual, rel=TOLERANCE), f"the row is now\n{row}"


@pytest.mark.parametrize(("_name", "lines", "minutes", "_purpose"), ROWS, ids=IDS)
def test_the_minutes_are_those_of_the_lines(
    _name: str, lines: str, minutes: str, _purpose: str
) -> None:
    assert minutes_for(int(lines)) == int(minutes)


@pytest.mark.parametrize("name", IDS)
def test_a_file_knows_none_that_is_read_after_it(name: str) -> None:
    assert set() == imported_by(name) & set(IDS[IDS.index(name) :])


def test_the_whole_takes_no_longer_than_an_hour() -> None:
    assert sum(int(lines) for _, lines, *_ in ROWS) <= 60 * LINES_PER_MINUTE
