"""Records in a file that others rotate."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import structlog

from broadcasterd.config import ConfigError, Log, from_mapping, load
from broadcasterd.figures.counts import Counts
from broadcasterd.observe.log import logging_as
from broadcasterd.observe.log_file import FileHandler, check_log_file
from tests.support.container import until

pytestmark = pytest.mark.usefixtures("logging_restored")

FULL = Path("/dev/full")
"""Takes nothing, as a full disk does (full(4))."""


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text})


def handler_of(path: Path, counts: Counts | None = None) -> FileHandler:
    handler = FileHandler(path, counts)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ]
        )
    )
    return handler


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_are_appended_to_the_file_and_to_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    path.write_text("{}\n")
    with logging_as(Log(format="json", file=path)):
        structlog.stdlib.get_logger("broadcasterd.m").info("a record", lone="\ud800")

    assert ["a record"] == [line["event"] for line in records(path)[1:]]
    assert "" == capsys.readouterr().err


def test_a_file_that_was_moved_is_left_behind(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    with logging_as(Log(format="json", file=path)) as reopen:
        log = structlog.stdlib.get_logger("broadcasterd.m")
        log.info("one")
        until(lambda: records(path))
        path.rename(moved)
        reopen()
        log.info("two")

    found = [[line["event"] for line in records(file)] for file in (moved, path)]

    assert [["one"], ["two"]] == found


def test_where_no_file_can_be_opened_anew_the_old_one_is_told(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    handler = handler_of(path)
    handler.emit(record("one"))
    path.rename(moved)
    path.mkdir()
    handler.reopen()
    handler.emit(record("two"))
    one, told, two = records(moved)

    assert ("one", "two") == (one["event"], two["event"])
    assert ("log file cannot be reopened", "error") == (told["event"], told["level"])
    assert (str(path), "Is a directory") == (told["file"], told["why"])

    path.rmdir()
    handler.reopen()
    handler.emit(record("three"))
    handler.close()

    assert ["three"] == [line["event"] for line in records(path)]


def test_a_full_disk_costs_records_that_are_counted_and_told(tmp_path: Path) -> None:
    counts = Counts()
    path = tmp_path / "log"
    path.symlink_to(FULL)
    handler = handler_of(path, counts)
    handler.emit(record("one"))
    handler.emit(record("two"))

    assert 2 == counts.unwritten_records

    path.unlink()
    handler.reopen()
    handler.emit(record("three"))
    handler.close()
    told, three = records(path)

    assert ("log records were dropped", 2) == (told["event"], told["count"])
    assert "three" == three["event"]


def test_a_stop_does_not_wait_for_what_is_left(tmp_path: Path) -> None:
    handler = handler_of(tmp_path / "log")
    handler.give_up_after(0)
    handler.emit(record("too late"))
    handler.close()

    assert [] == records(tmp_path / "log")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("missing/log", "there is no directory {}/missing"),
        ("directory", "cannot be written: Is a directory"),
        ("file/log", "cannot be written: Not a directory"),
        ("pipe", "cannot be written: No such device or address"),  # nobody reads it
    ],
)
def test_a_bad_path_is_named_and_told_before_the_start(
    place: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / place
    with pytest.raises(ConfigError) as caught:
        check_log_file(Log(file=path))

    assert f'log.file = "{path}": {why.format(tmp_path)}' == str(caught.value)

    with pytest.raises(ConfigError, match="cannot be opened"), logging_as(Log(file=path)):
        pass


def test_a_check_makes_no_file(tmp_path: Path) -> None:
    check_log_file(Log(file=tmp_path / "log"))
    check_log_file(Log())

    assert [] == [*tmp_path.iterdir()]


def test_a_file_does_not_go_with_the_journal() -> None:
    with pytest.raises(ConfigError, match=r'log\.file = "x": expected log\.format'):
        from_mapping({"log": {"file": "x", "format": "journal"}})
    assert Path("x") == load(None, {"BROADCASTERD_LOG__FILE": "x"}).log.file
