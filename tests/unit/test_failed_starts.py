"""Starts that fail again and again come after growing pauses."""

from __future__ import annotations

from pathlib import Path

from broadcasterd.host.failed_starts import LONGEST_PAUSE_S, FailedStarts


def test_the_first_failure_is_told_at_once_and_pauses_grow(tmp_path: Path) -> None:
    pauses = [FailedStarts(tmp_path).another() for _ in range(10)]

    assert [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S] == pauses[:7]
    assert {LONGEST_PAUSE_S} == set(pauses[7:])


def test_a_start_that_succeeds_begins_the_count_anew(tmp_path: Path) -> None:
    failed = FailedStarts(tmp_path)
    assert [0.0, 1.0] == [failed.another(), failed.another()]
    failed.forget()
    failed.forget()

    assert 0.0 == failed.another()


def test_without_a_directory_or_with_a_damaged_count_there_is_no_pause(tmp_path: Path) -> None:
    (tmp_path / "failed-starts").write_text("many")

    assert [0.0, 0.0] == [FailedStarts(None).another(), FailedStarts(None).another()]
    assert 0.0 == FailedStarts(tmp_path).another()
    assert 0.0 == FailedStarts(tmp_path / "not there").another()
