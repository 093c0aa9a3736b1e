"""The report of quality: how it is kept, what is told of it, and its line in the history."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from broadcasterd.host.quality import read_reports
from quality.report import SCHEMA, Report, append, read, write
from quality.sections import Deadlocks, Hooks, Loop, Outcomes
from quality.wording import ROWS, text
from tests.support.tools import ROOT

TESTS = Outcomes(
    passed=198, failed=2, skipped=5, hung=1, success_rate=0.99, seconds=584.2, failures=["a", "b"]
)
REPORT = Report(
    date="2026-01-15T12:00:00Z",
    commit="0123456789abcdef",
    changed=True,
    version="1.0",
    python="3.11.2",
    cores=2,
    selection="fast",
    tests=TESTS,
    success_rate=0.99,
    hooks_seconds=4.1,
    unmeasured={"coverage": "it has no build/coverage.json", "load": "the daemon: no"},
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write(REPORT, tmp_path / "build/quality.json")

    assert REPORT == read(tmp_path / "build/quality.json")


def test_a_report_of_another_schema_is_refused(tmp_path: Path) -> None:
    write(msgspec.structs.replace(REPORT, schema=SCHEMA + 1), tmp_path / "quality.json")

    with pytest.raises(msgspec.ValidationError, match="schema"):
        read(tmp_path / "quality.json")


def test_the_live_page_reads_the_history(tmp_path: Path) -> None:
    history = tmp_path / "build/quality-history.jsonl"
    for _ in range(2):
        append(REPORT, history)

    run = {"date": REPORT.date, "success_rate": 0.99, "hooks_seconds": 4.1}
    assert [run, run] == read_reports(history)
    assert json.loads(history.read_text().splitlines()[0])["failed"] == 2


def test_the_text_has_a_line_for_each_section_and_says_why_one_has_no_figures() -> None:
    lines = text(REPORT).splitlines()

    assert [*ROWS] == [line.split()[0] for line in lines[1 : len(ROWS) + 1]]
    assert "  tests      198 of 200 passed (99.0 %) in 584 s" in lines
    assert "  coverage   not measured: it has no build/coverage.json" in lines
    assert "  memory     not measured: the daemon: no" in lines
    assert ["  failed: a", "  failed: b"] == lines[-2:]


@pytest.mark.parametrize(
    ("hung", "stuck", "total"), [([0, 0], 0, 0), ([1, 0], 0, 1), ([0, 2], 3, 5)]
)
def test_tests_and_tasks_that_hung_are_deadlocks(hung: list[int], stuck: int, total: int) -> None:
    runs = [msgspec.structs.replace(TESTS, hung=count) for count in hung]
    found = Deadlocks.of([*runs, None], Loop(records=9, stuck=stuck, longest_ms=1, max_lag_ms=1))

    assert found is not None
    assert total == found.total


def test_where_nothing_ends_what_hangs_nothing_is_known_of_deadlocks() -> None:
    assert Deadlocks.of([TESTS, msgspec.structs.replace(TESTS, hung=None)], None) is None
    assert Deadlocks.of([None], None) is None


def test_every_field_is_explained() -> None:
    page = (ROOT / "docs/quality.md").read_text()
    explained = set(re.findall(r"`(\w+)`", page))
    sections = (Report, Outcomes, Hooks, Loop, Deadlocks)

    assert set() == {name for each in sections for name in each.__struct_fields__} - explained
