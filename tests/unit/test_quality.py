"""Quality reports: what a file has of them, whatever else is in it."""

from __future__ import annotations

from pathlib import Path

import structlog.testing

from broadcasterd.host.quality import MAX_BYTES, MAX_RUNS, Newest, read_reports


def test_each_line_is_a_run(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(
        '{"date": "2026-11-24", "success_rate": 0.5, "hooks_seconds": 12, "commit": "f00"}\n'
        '{"date": "2026-11-25", "success_rate": true}\n'
    )

    assert [
        {"date": "2026-11-24", "success_rate": 0.5, "hooks_seconds": 12.0},
        {"date": "2026-11-25", "success_rate": None, "hooks_seconds": None},
    ] == read_reports(path)


def test_what_is_no_report_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(
        b'\xff\n[]\n{"date": 3}\n\n{"no": "date"}\n{"date": "2026-11-25"}\n{"date": "cu'
    )

    assert ["2026-11-25"] == [report["date"] for report in read_reports(path)]


def test_of_a_long_file_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("".join(f'{{"date": "{number:010}"}}\n' for number in range(MAX_BYTES)))
    read = read_reports(path)

    assert MAX_RUNS == len(read)
    assert f"{MAX_BYTES - 1:010}" == read[-1]["date"]


def test_a_file_that_is_not_there_is_a_record_and_no_failure(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as records:
        assert () == read_reports(tmp_path / "gone.jsonl")

    assert ["no quality report"] == [record["event"] for record in records]


def test_where_none_is_configured_there_is_none() -> None:
    assert () == read_reports(None)


def test_the_newest_run_is_the_last_line_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    newest = Newest(lambda: path)
    assert (None, None) == (newest.success_rate(), newest.hooks_seconds())

    for rate in (0.9, 0.99):
        with path.open("a") as history:
            history.write(f'{{"date": "2026-11-25", "success_rate": {rate}, "hooks_seconds": 4}}\n')

        assert (rate, 4.0) == (newest.success_rate(), newest.hooks_seconds())

    path.unlink()
    assert newest.success_rate() is None


def test_without_a_file_there_is_no_newest_run() -> None:
    assert Newest(lambda: None).success_rate() is None
