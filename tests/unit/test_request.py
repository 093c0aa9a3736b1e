"""A request's head: what its query says, and what is refused of it."""

from __future__ import annotations

import pytest

from broadcasterd.edge.request import MAX_QUERY_FIELDS, Head, parse_query
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
