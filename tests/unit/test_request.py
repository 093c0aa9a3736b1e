"""A request's head: what its query says, what is refused, and how repeated fields are joined."""

from __future__ import annotations

import pytest

from broadcasterd.api.request import MAX_QUERY_FIELDS, Head, join_fields, parse_query
from broadcasterd.errors import BadRequest


def head(query: str) -> Head:
    """Return the head of a request with this query."""
    return Head("GET", "/", parse_query(query.encode()), {}, "127.0.0.1", "1.1")


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", None),
        ("other=1", None),
        ("name=", None),
        ("name", None),
        ("name=a", "a"),
        ("name=a&name=b", "b"),
        ("name=a&name=", "a"),
        ("name=a+b%2Bc", "a b+c"),
        ("name=%C3%A9", "é"),
        ("NAME=a", None),
    ],
)
def test_the_last_value_that_is_not_empty_counts(query: str, value: str | None) -> None:
    assert value == head(query).parameter("name")


@pytest.mark.parametrize(("query", "number"), [("", 7), ("n=1", 1), ("n=009", 9), ("n=10", 10)])
def test_a_whole_number_within_its_bounds_is_taken(query: str, number: int) -> None:
    assert number == head(query).number("n", default=7, low=1, high=10)


@pytest.mark.parametrize("value", ["0", "11", "x", "-1", "1.0", "+1", "1e1", "%201", "9" * 10, "²"])
def test_any_other_is_refused_and_the_bounds_are_told(value: str) -> None:
    with pytest.raises(BadRequest, match="n: expected a whole number from 1 to 10"):
        head(f"n={value}").number("n", default=7, low=1, high=10)


def test_a_query_has_a_bounded_number_of_fields() -> None:
    assert MAX_QUERY_FIELDS == len(parse_query(b"&".join([b"a=b"] * MAX_QUERY_FIELDS)))
    with pytest.raises(BadRequest):
        parse_query(b"&".join([b"a=b"] * (MAX_QUERY_FIELDS + 1)))


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
