"""The place where a request wants to start: the header, the query, and which of them wins."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcasterd.core.position import (
    ID_PARAMETERS,
    ById,
    First,
    Last,
    Now,
    Since,
    Start,
    parse_from,
    parse_start,
)
from broadcasterd.errors import BadRequest

NEW_YEAR_2026 = 1767225600.0


def test_without_a_word_it_is_everything_retained() -> None:
    assert parse_start(None, []) == First()


def test_the_header_wins_over_the_query() -> None:
    query = [("last_event_id", "query-2"), ("from", "now")]

    assert parse_start("header-1", query) == ById("header-1")


def test_an_empty_header_is_none() -> None:
    assert parse_start("", [("lastEventId", "query-2")]) == ById("query-2")


@pytest.mark.parametrize("name", sorted(ID_PARAMETERS))
def test_every_name_that_clients_use_for_the_id_is_known(name: str) -> None:
    assert parse_start(None, [(name, "a-1")]) == ById("a-1")


def test_the_last_id_that_is_not_empty_wins_whatever_it_is_called() -> None:
    query = [("lastEventId", "a-1"), ("last_event_id", "a-2"), ("Last-Event-ID", "")]

    assert parse_start(None, query) == ById("a-2")


def test_an_id_wins_over_from_wherever_it_stands() -> None:
    assert parse_start(None, [("lastEventID", "a-1"), ("from", "now")]) == ById("a-1")
    assert parse_start(None, [("from", "now"), ("lastEventID", "a-1")]) == ById("a-1")


def test_a_malformed_from_is_no_matter_where_an_id_wins() -> None:
    assert parse_start("a-1", [("from", "yesterday")]) == ById("a-1")
    assert parse_start(None, [("last_event_id", "a-1"), ("from", "yesterday")]) == ById("a-1")


def test_empty_ids_leave_it_to_from() -> None:
    assert parse_start("", [("last_event_id", ""), ("from", "now")]) == Now()


@pytest.mark.parametrize(
    ("text", "event_id"),
    [
        (" a-1 ", "a-1"),
        ("\ta-1", "a-1"),
        ('"a-1"', "a-1"),
        (' "a-1" ', "a-1"),
        ("a-1, a-1", "a-1"),
        ('a-1,"a-1"', "a-1"),
        ("a-1, a-2", "a-1, a-2"),  # none that was ever given out: a gap
        ("x y", "x y"),
        ('""', ""),
        (" ", ""),
    ],
)
def test_an_id_may_come_in_quotes_with_spaces_or_twice(text: str, event_id: str) -> None:
    expected = ById(event_id) if event_id else First()

    assert parse_start(text, []) == expected
    assert parse_start(None, [("last_event_id", text)]) == expected


def test_names_that_mean_nothing_are_passed_over() -> None:
    query = [("ticket", "a-1"), ("LAST_EVENT_ID", "a-2"), ("FROM", "now")]

    assert parse_start(None, query) == First()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("", First()),
        ("start", First()),
        ("now", Now()),
        ("last:0", Last(0)),
        ("last:25", Last(25)),
        ("2026-01-01T00:00:00Z", Since(NEW_YEAR_2026)),
        ("2026-01-01t00:00:00z", Since(NEW_YEAR_2026)),  # RFC 3339 §5.6: case does not matter
        ("2026-01-01 00:00:00Z", Since(NEW_YEAR_2026)),
        ("2026-01-01T00:00:00.250Z", Since(NEW_YEAR_2026 + 0.25)),
        ("2026-01-01T02:00:00+02:00", Since(NEW_YEAR_2026)),
        ("2025-12-31T19:00:00-05:00", Since(NEW_YEAR_2026)),
        ("1970-01-01T00:00:00Z", Since(0.0)),
    ],
)
def test_from_has_these_forms(where: str, expected: Start) -> None:
    assert parse_from(where) == expected
    assert parse_start(None, [("from", where)]) == expected


def test_an_offset_whose_plus_became_a_space_is_understood() -> None:
    assert parse_from("2026-01-01T02:00:00 02:00") == Since(NEW_YEAR_2026)


@pytest.mark.parametrize(
    "where",
    [
        "yesterday",
        "NOW",
        " now",
        "last:",
        "last:-1",
        "last:1.5",
        "last:٣",
        "last:1234567890",
        "2026-01-01",  # neither a time nor an offset: whose midnight?
        "2026-01-01T00:00:00",
        "2026-01-01 10:00",
        "2026-13-01T00:00:00Z",
        "2026-01-01T00:00:00+99:00",
        "1767225600",
    ],
)
def test_any_other_from_is_a_bad_request_that_says_what_was_expected(where: str) -> None:
    with pytest.raises(BadRequest, match=r"from: expected start, now, last:N or") as refused:
        parse_from(where)

    assert refused.value.status == HTTPStatus.BAD_REQUEST


@given(where=st.text() | st.from_regex(r"[0-9T:. +Zz-]{1,30}", fullmatch=True))
@example(where="0001-01-01T00:00:00+23:59")
@example(where="9999-12-31T23:59:59.999999-23:59")
@example(where="\ud800")
def test_from_is_understood_or_a_bad_request_and_never_anything_else(where: str) -> None:
    try:
        parsed = parse_from(where)
    except BadRequest:
        return

    assert isinstance(parsed, First | Now | Last | Since)
