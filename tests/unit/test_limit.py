"""Records that strangers cause: a few of a kind in a second, and the number of the others."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import broadcasterd
from broadcasterd.observe.limit import LIMITED, RECORDS_PER_S, RecordLimit


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def record(text: str, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": {"event": text, **fields}})


def passed(limit: RecordLimit, made: logging.LogRecord, times: int = 100) -> int:
    return sum(limit.filter(made) for _ in range(times))


def test_of_one_kind_a_few_pass_in_a_second_and_the_others_are_counted() -> None:
    clock = Clock()
    limit = RecordLimit(clock)

    assert RECORDS_PER_S == passed(limit, record("token refused"))
    assert {} == limit.take_left_out(), "the second is not over"

    clock.now += 1

    assert {"token refused": 100 - RECORDS_PER_S} == limit.take_left_out()
    assert {} == limit.take_left_out()
    assert RECORDS_PER_S == passed(limit, record("token refused"))
    assert {"token refused": 100 - RECORDS_PER_S} == limit.take_left_out(is_over=True)


def test_one_kind_takes_no_room_of_another() -> None:
    limit = RecordLimit(Clock())
    passed(limit, record("token refused"))

    assert limit.filter(record("a connection failed"))


def test_what_strangers_do_not_cause_is_always_written() -> None:
    limit = RecordLimit(Clock())

    assert 100 == passed(limit, record("stream ended"))
    assert 100 == passed(limit, record("subject revoked"))


def test_tracebacks_are_limited_whatever_is_said_with_them() -> None:
    error = ValueError()
    made = record("a session failed", exc_info=(ValueError, error, None))

    assert RECORDS_PER_S == passed(RecordLimit(Clock()), made)


def test_what_other_libraries_say_is_limited_by_library() -> None:
    limit = RecordLimit(Clock())
    for number in range(100):
        limit.filter(logging.makeLogRecord({"name": "hypercorn.error", "msg": f"no. {number}"}))

    assert {"hypercorn.error": 100 - RECORDS_PER_S} == limit.take_left_out(is_over=True)


ALWAYS_WRITTEN = {
    "fewer connections than limits.max_connections: too few open files are allowed",  # at the start
}


def test_every_record_of_what_faces_strangers_is_limited() -> None:
    texts = set()
    for package in ("access", "api", "server"):
        for path in (Path(broadcasterd.__file__).parent / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(ast.Attribute(ast.Name("log")), [ast.Constant(str(text)), *_]):
                        texts.add(text)

    assert texts
    assert set() == texts - LIMITED - ALWAYS_WRITTEN
