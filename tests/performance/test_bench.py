"""The benchmark runs, and its tables hold the measured figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.performance import page, posts
from tests.performance.bench import Findings, measure, report
from tests.performance.figures import Measured, added, medians, ratios
from tests.performance.processes import ROOT
from tests.performance.scenarios import SCENARIOS
from tests.performance.servers import checkout, daemon
from tests.performance.size import Size, Steady

LABELS = {"broadcasterd": "ours", "nchan": "theirs"}
MEASURED: Measured = {
    "broadcasterd": {
        "deliver_1000_us": [9.0, 2.0, 4.0],
        "deliver_200_us": [1.0],
        "connect_failures": [0.0],
    },
    "nchan": {"deliver_1000_us": [3.0, 4.0, 4.0], "storm_s": [1.0]},
}
TINY = Size(
    rounds=1,
    post_s=0.2,
    posts_alone=5,
    sessions=3,
    ndjson_lines=20,
    subscribes=10,
    few=(Steady(subscribers=5, events=5, rate=50),),
    crowds=(Steady(subscribers=10, events=5, rate=50),),
    one_each=10,
    storm=10,
    live=Steady(subscribers=2, events=30, rate=30),
    health=Steady(subscribers=10, events=10, rate=50),
)
FOREVER = float("inf")


def test_medians_by_server() -> None:
    assert medians(MEASURED, LABELS).splitlines() == [
        "|                                        | ours | theirs | aim |",
        "| -------------------------------------- | ---: | -----: | --: |",
        "| connect, POST, close: failures         |    0 |      - |   0 |",
        "| µs CPU per delivery, 200 subscribers   |  1.0 |      - |     |",
        "| µs CPU per delivery, 1,000 subscribers |  4.0 |    4.0 |     |",
        "| s until all who were cut are back      |    - |   1.00 | ≤ 2 |",
    ]


def test_ratios_are_those_of_each_round() -> None:
    """Their median: 3, 0.5 and 1; and of costs alone."""
    assert ratios(MEASURED, LABELS).splitlines() == [
        "| ours : theirs                          | theirs |",
        "| -------------------------------------- | -----: |",
        "| µs CPU per delivery, 200 subscribers   |      - |",
        "| µs CPU per delivery, 1,000 subscribers |   1.00 |",
    ]


def test_added_latency_is_that_of_each_round() -> None:
    """The median of 1.5, 0.5 and 4, and not the difference of medians."""
    measured: Measured = {
        "broadcasterd": {"alone_answer_ms": [1.0, 2.0, 3.0], "connect_us": [1.0]},
        "nchan": {"alone_answer_ms": [2.5, 2.5, 7.0], "connect_us": [2.0]},
    }

    assert added(measured, LABELS).splitlines() == [
        "| theirs - ours                           | theirs |",
        "| --------------------------------------- | -----: |",
        "| ms from a POST alone to its answer, p50 |  +1.50 |",
    ]
    assert not added({"broadcasterd": measured["broadcasterd"]}, LABELS)


def test_what_is_missing_is_told() -> None:
    findings = Findings(left_out=["Nchan: it is missing"])

    assert "Left out: Nchan: it is missing." in report(findings, LABELS)


def test_nothing_is_begun_when_the_time_is_over() -> None:
    findings = measure({"broadcasterd": daemon("ours", ROOT)}, ["publish"], TINY, until=0)

    assert findings.measured == {}
    assert findings.no_time_for == ["publish, round 1: ours"]


def test_the_page_gets_what_stands_between_its_marks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "performance.md")
    monkeypatch.setattr(page, "IMAGES", tmp_path / "images")
    (tmp_path / "costs.png").write_bytes(b"PNG")
    page.PAGE.write_text(f"before\n{page.BEGIN}old\n{page.END}after\n")

    page.put("a table", [tmp_path / "costs.png"])

    assert page.PAGE.read_text() == (
        f"before\n{page.BEGIN}\na table\n\n![costs](images/costs.png)\n\n{page.END}after\n"
    )
    assert (tmp_path / "images" / "costs.png").read_bytes() == b"PNG"


def test_the_page_has_its_marks() -> None:
    assert page.PAGE.read_text().index(page.BEGIN) < page.PAGE.read_text().index(page.END)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_finds_figures_for_the_table(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without wrk, which may have nothing answered when its time is over."""
    monkeypatch.setattr(posts, "find_wrk", lambda: None)

    findings = measure({"broadcasterd": daemon("ours", ROOT)}, [name], TINY, until=FOREVER)

    assert findings.broken == []
    found = findings.measured["broadcasterd"]
    assert found
    assert len(medians(findings.measured, LABELS).splitlines()) == 2 + len(found)


def test_another_revision_is_put_beside(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    found = checkout("HEAD", tmp_path)

    assert (found / "daemon" / "broadcasterd" / "__init__.py").exists()
