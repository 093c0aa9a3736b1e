"""A request's head: repeated fields, the query, and numbers in it."""

from __future__ import annotations

import pytest

from broadcasterd.api.request import MAX_QUERY_FIELDS, Head, join_fields, parse_query
from broadcasterd.errors import BadRequest


def head(query: bytes = b"") -> Head:
    return Head("GET", "/", parse_query(query), {}, "127.0.0.1", "1.1")


@pytest.mark.parametrize(
    ("fields", "joined"),
    [
        ([], {}),
        ([(b"Accept", b"a")], {"accept": "a"}),
        ([(b"accept", b"a"), (b"Accept", b"b")], {"accept": "a, b"}),
        (
            [(b"X-Forwarded-For", b"a"), (b"x-forwarded-for", b"b, c")],
            {"x-forwarded-for": "a, b, c"},
        ),
        ([(b"cookie", b"a=1"), (b"Cookie", b"b=2; c=3")], {"cookie": "a=1; b=2; c=3"}),
        ([(b"a", b"\xe9")], {"a": "é"}),
        ([(b"a", b""), (b"a", b"1")], {"a": ", 1"}),
    ],
    ids=str,
)
def test_repeated_fields_are_one_list_and_cookies_one_row(
    fields: list[tuple[bytes, bytes]], joined: dict[str, str]
) -> None:
    assert joined == join_fields(fields)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (b"", None),
        (b"a=1", "1"),
        (b"a=1&a=2", "2"),
        (b"a=1&a=", "1"),
        (b"a=", None),
        (b"b=1", None),
        (b"a=%C3%A9+x", "é x"),
    ],
)
def test_the_last_value_that_is_not_empty_counts(query: bytes, value: str | None) -> None:
    assert value == head(query).parameter("a")


def test_a_query_has_only_so_many_fields() -> None:
    most = b"&".join([b"a=b"] * MAX_QUERY_FIELDS)

    assert MAX_QUERY_FIELDS == len(parse_query(most))
    with pytest.raises(BadRequest, match=str(MAX_QUERY_FIELDS)):
        parse_query(most + b"&a=b")


@pytest.mark.parametrize(("query", "number"), [(b"", 7), (b"n=1", 1), (b"n=10", 10), (b"n=007", 7)])
def test_a_number_in_bounds_is_taken(query: bytes, number: int) -> None:
    assert number == head(query).number("n", default=7, low=1, high=10)


@pytest.mark.parametrize("text", ["0", "11", "-1", "1.5", "x", "+1", "1e3", "٣", "9" * 10])
def test_any_other_is_refused_in_words(text: str) -> None:
    asked = Head("GET", "/", (("n", text),), {}, "127.0.0.1", "1.1")

    with pytest.raises(BadRequest, match="n: expected a whole number from 1 to 10"):
        asked.number("n", default=7, low=1, high=10)
