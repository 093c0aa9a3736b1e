"""The log: writers never wait, dropped records are counted, and no secret gets into it."""

from __future__ import annotations

import json
import logging
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Literal

import pytest
import structlog
from typing_extensions import override

from broadcasterd.config import Log
from broadcasterd.observe import log as log_module
from broadcasterd.observe.log import DroppingQueueHandler

Format = Literal["auto", "journal", "json", "console"]


pytestmark = pytest.mark.usefixtures("logging_restored")


class Written:
    """What was written to standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    @contextmanager
    def by_the_end_of(self, writing: AbstractContextManager[object]) -> Iterator[list[str]]:
        """Log inside; afterwards the lines are in the list."""
        lines: list[str] = []
        with writing:
            yield lines
        lines += self._capsys.readouterr().err.splitlines()


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Written:
    """Return what was written to standard error."""
    return Written(capsys)


def logging_as(
    kind: Format, level: Literal["debug", "info", "warning"] = "info"
) -> AbstractContextManager[object]:
    return log_module.logging_as(Log(format=kind, level=level))


def fail_with_a_secret() -> None:
    secret = "hidden-token"
    raise ValueError(f"{len(secret)} characters are too many")


def fail_otherwise() -> None:
    raise KeyError("another")


# --- json ------------------------------------------------------------------------------------


def test_json_is_a_record_a_line(written: Written) -> None:
    with written.by_the_end_of(logging_as("json")) as lines:
        log = structlog.stdlib.get_logger("broadcasterd.some")
        log.info("stream ended", session="s", sent_bytes=3, reason=None)
        log.warning("two\nlines", odd={"a": object})

    first, second = (json.loads(line) for line in lines)
    moment = datetime.fromisoformat(first.pop("timestamp"))

    assert UTC == moment.tzinfo
    assert {
        "event": "stream ended",
        "session": "s",
        "sent_bytes": 3,
        "reason": None,
        "level": "info",
        "logger": "broadcasterd.some",
    } == first
    assert ("two\nlines", "warning") == (second["event"], second["level"])


def test_an_exception_in_json_has_the_traceback_of_where_it_was_caught(written: Written) -> None:
    with written.by_the_end_of(logging_as("json")) as lines:
        try:
            fail_with_a_secret()
        except ValueError:
            structlog.stdlib.get_logger("broadcasterd.m").exception("it failed", session="s")

    [record] = map(json.loads, lines)

    assert ("it failed", "error", "s") == (record["event"], record["level"], record["session"])
    assert "in fail_with_a_secret" in record["exception"]
    assert record["exception"].endswith("ValueError: 12 characters are too many")
    assert "exc_info" not in record


# --- console ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["auto", "console"])
def test_the_others_are_for_people(kind: Format, written: Written) -> None:
    with written.by_the_end_of(logging_as(kind)) as lines:
        structlog.stdlib.get_logger("broadcasterd.some").info("stream ended", session="s")

    [line] = lines

    assert re.fullmatch(r"\S+Z \[info *\] stream ended +\[broadcasterd.some\] session=s", line)


def test_an_exception_on_a_console_has_its_traceback(written: Written) -> None:
    with written.by_the_end_of(logging_as("console")) as lines:
        try:
            fail_with_a_secret()
        except ValueError:
            structlog.stdlib.get_logger("broadcasterd.m").exception("it failed")

    assert "it failed" in lines[0]
    assert "Traceback (most recent call last):" in lines
    assert any("in fail_with_a_secret" in line for line in lines)
    assert "ValueError: 12 characters are too many" == lines[-1]


# --- exceptions in both ----------------------------------------------------------------------

each_format = pytest.mark.parametrize("kind", ["json", "console"])


@each_format
def test_a_traceback_holds_no_local_variables(kind: Format, written: Written) -> None:
    with written.by_the_end_of(logging_as(kind)) as lines:
        log = structlog.stdlib.get_logger("broadcasterd.m")
        try:
            fail_with_a_secret()
        except ValueError as error:
            log.exception("as it is caught")
            log.error("handed on", exc_info=error)  # noqa: TRY400 (as a session does it)
            logging.getLogger("foreign").exception("by the standard library")

    text = "\n".join(lines)

    assert 3 == text.count("ValueError: 12 characters")
    assert "hidden-token" not in text


def test_where_a_prettier_formatter_is_installed_it_is_not_used(written: Written) -> None:
    """It would show local variables: structlog takes it by default where it finds it."""
    with written.by_the_end_of(logging_as("console")):
        [thread] = writing_threads()
        formatter = getattr(listener_of(thread).handlers[0], "formatter", None)
        assert isinstance(formatter, structlog.stdlib.ProcessorFormatter)
        renderer = [*formatter.processors][-1]

        assert isinstance(renderer, structlog.dev.ConsoleRenderer)
        assert renderer.exception_formatter is structlog.dev.plain_traceback


@each_format
def test_an_error_that_is_handed_on_has_its_traceback(kind: Format, written: Written) -> None:
    def caught() -> Exception:
        try:
            fail_with_a_secret()
        except ValueError as error:
            return error
        raise AssertionError

    with written.by_the_end_of(logging_as(kind)) as lines:
        structlog.stdlib.get_logger("broadcasterd.m").error("it failed", exc_info=caught())

    assert "in fail_with_a_secret" in "\n".join(lines)


@each_format
def test_the_exception_is_the_callers_not_the_writing_threads(
    kind: Format, written: Written
) -> None:
    """The writer is held up until the caller handles another exception, or none."""
    with written.by_the_end_of(logging_as(kind)) as lines:
        log = structlog.stdlib.get_logger("broadcasterd.m")
        with held_up():
            try:
                fail_with_a_secret()
            except ValueError:
                log.exception("first")
            try:
                fail_otherwise()
            except KeyError:
                log.exception("second")
            log.error("third", exc_info=True)  # noqa: LOG014 (there is none: that is the test)

    text = "\n".join(lines)

    assert text.index("first") < text.index("ValueError: 12") < text.index("second")
    assert text.index("second") < text.index("KeyError: 'another'") < text.index("third")
    assert 2 == text.count("Traceback")


@each_format
def test_a_group_is_written_with_all_that_is_in_it(kind: Format, written: Written) -> None:
    with written.by_the_end_of(logging_as(kind)) as lines:
        error = ExceptionGroup("several", [ValueError("one"), KeyError("other")])
        structlog.stdlib.get_logger("broadcasterd.m").critical("the daemon failed", exc_info=error)

    text = "\n".join(lines)

    assert "ValueError: one" in text
    assert "KeyError: 'other'" in text


# --- other people's records ------------------------------------------------------------------


def test_records_of_the_standard_library_look_the_same(written: Written) -> None:
    with written.by_the_end_of(logging_as("json")) as lines:
        logging.getLogger("foreign").warning("%s of %d", "one", 2)

    [record] = map(json.loads, lines)

    assert ("one of 2", "warning", "foreign") == (
        record["event"],
        record["level"],
        record["logger"],
    )


@pytest.mark.parametrize("name", ["hypercorn.error", "quart", "trio", "h2", "hpack.hpack"])
def test_of_libraries_only_warnings_are_written(name: str, written: Written) -> None:
    with written.by_the_end_of(logging_as("json", "debug")) as lines:
        logging.getLogger(name).info("chat")
        logging.getLogger(name).warning("news")

    assert ["news"] == [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
    ],
)
def test_what_is_below_the_level_is_not_written(
    level: Literal["debug", "info", "warning"], expected: list[str], written: Written
) -> None:
    with written.by_the_end_of(logging_as("json", level)) as lines:
        log = structlog.stdlib.get_logger("broadcasterd.m")
        log.debug("d")
        log.info("i")
        log.warning("w")
        log.error("e")

    assert expected == [json.loads(line)["level"] for line in lines]


# --- the queue -------------------------------------------------------------------------------


@contextmanager
def held_up() -> Iterator[Callable[[], None]]:
    """Hold up the thread that writes, as a terminal or pipe that nobody reads does."""
    reached, go_on = threading.Event(), threading.Event()

    class Stuck(logging.Filter):
        @override
        def filter(self, record: logging.LogRecord) -> bool:
            reached.set()
            assert go_on.wait(10)
            return True

    [thread] = writing_threads()
    handler = listener_of(thread).handlers[0]
    assert isinstance(handler, logging.Handler)
    stuck = Stuck()
    handler.addFilter(stuck)
    logging.getLogger("held up").warning("this one is being written")
    assert reached.wait(10)
    try:
        yield go_on.set
    finally:
        go_on.set()
        handler.removeFilter(stuck)


def writing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_monitor" in thread.name]


def listener_of(thread: threading.Thread) -> logging.handlers.QueueListener:
    target = thread._target  # type: ignore[attr-defined] # there is no other way to it
    found = target.__self__
    assert isinstance(found, logging.handlers.QueueListener)
    return found


def test_who_writes_does_not_wait_for_who_reads(written: Written) -> None:
    with written.by_the_end_of(logging_as("json")) as lines:
        log = structlog.stdlib.get_logger("broadcasterd.m")
        with held_up():
            for number in range(1000):
                log.info("record", number=number)  # the test hangs here if it waits

    numbers = [json.loads(line).get("number") for line in lines]

    assert [None, *range(1000)] == numbers


def test_what_finds_the_queue_full_is_dropped_and_counted(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "QUEUED_RECORDS", 10)
    with written.by_the_end_of(logging_as("json")) as lines:
        log = structlog.stdlib.get_logger("broadcasterd.m")
        with held_up():
            for number in range(25):
                log.info("record", number=number)

    _, *records, last = map(json.loads, lines)

    assert list(range(10)) == [record["number"] for record in records]
    assert ("log records were dropped", 15) == (last["event"], last["count"])
    assert ("error", log_module.__name__) == (last["level"], last["logger"])


def test_where_nothing_was_dropped_nothing_is_said(written: Written) -> None:
    with written.by_the_end_of(logging_as("json")) as lines:
        structlog.stdlib.get_logger("broadcasterd.m").info("one")

    assert 1 == len(lines)


def test_a_queue_that_is_full_takes_the_next_when_there_is_room() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue(1)
    handler = DroppingQueueHandler(records)
    first, second, third = (logging.makeLogRecord({"msg": text}) for text in "abc")
    handler.emit(first)
    handler.emit(second)

    assert 1 == handler.untold
    assert records.get_nowait() is first

    handler.emit(third)

    assert 0 == handler.untold, "there was room to tell it"
    assert records.get_nowait() is third


# --- the way out -----------------------------------------------------------------------------


def test_on_the_way_out_everything_is_flushed_and_the_thread_ends(written: Written) -> None:
    with written.by_the_end_of(logging_as("json")) as lines:
        assert 1 == len(writing_threads())
        for number in range(500):
            structlog.stdlib.get_logger("broadcasterd.m").info("record", number=number)

    assert 500 == len(lines)
    assert [] == writing_threads()


def test_on_the_way_out_no_handler_is_left(written: Written) -> None:
    before = list(logging.getLogger().handlers)
    with logging_as("json"):
        assert len(before) + 1 == len(logging.getLogger().handlers)

    assert before == logging.getLogger().handlers


def test_an_error_inside_flushes_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(ValueError, match="too many"))
        stack.enter_context(logging_as("json"))
        structlog.stdlib.get_logger("broadcasterd.m").info("the last words")
        fail_with_a_secret()

    assert "the last words" in capsys.readouterr().err


def test_it_is_standard_error_that_is_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as("console"):
        structlog.stdlib.get_logger("broadcasterd.m").info("hello")
    found = capsys.readouterr()

    assert "" == found.out
    assert "hello" in found.err
    assert not sys.stderr.isatty()
    assert "\x1b" not in found.err, "colours are for terminals"
