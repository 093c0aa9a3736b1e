"""Field values by their grammar: a table for each field, and whatever no table has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.api.fields import (
    Malformed,
    bearer_tokens,
    codings,
    content_type,
    cookies,
    entity_tags,
    prefers,
)

JSON, STREAM = "application/json", "text/event-stream"
VALUES = st.text(st.characters(min_codepoint=1, max_codepoint=255)) | st.from_regex(
    r'([a-z*]+/[a-z*]+|;|,| |=|"|\\|q=|0\.5|charset|Bearer|Basic|a\.b\.c){0,12}', fullmatch=True
)


# --- Content-Type ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "media_type", "charset"),
    [
        ("application/json", JSON, None),
        ("Application/JSON", JSON, None),
        ("application/json;charset=UTF-8", JSON, "utf-8"),
        ('application/json ; charset="utf-8"', JSON, "utf-8"),
        (r'text/plain; charset="utf\-8"', "text/plain", "utf-8"),
        ("text/plain;", "text/plain", None),
        ("text/plain; ; charset=utf-8;", "text/plain", "utf-8"),
        ('text/plain; a="x, y; z"; charset=utf-8', "text/plain", "utf-8"),
        ("text/plain; charset=utf-8; charset=UTF-8", "text/plain", "utf-8"),
        ("application/json, application/json", JSON, None),
        ("application/json; charset=utf-8,Application/json;Charset=UTF-8", JSON, "utf-8"),
    ],
)
def test_a_content_type_is_its_type_and_its_charset(
    value: str, media_type: str, charset: str | None
) -> None:
    assert content_type(value) == (media_type, charset)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "json",
        "application/",
        "/json",
        "application/json text/plain",
        "application/json; charset",
        "application/json; charset=",
        "application/json; charset = utf-8",
        'application/json; charset="utf-8',
        "application/json; charset=utf-8; charset=utf-16",
        "application/json, text/plain",
        "application/json, application/json; charset=utf-8",
        "application/json,",
        ", application/json",
        "text/plain; x=/application/json",
        "a b/json",
    ],
)
def test_a_content_type_that_is_malformed_or_not_one_is_refused(value: str) -> None:
    with pytest.raises(Malformed):
        content_type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("identity", []),
        ("Identity, ", []),
        ("gzip", ["gzip"]),
        ("identity, GZIP,br", ["gzip", "br"]),
    ],
)
def test_codings_are_listed_but_for_identity(value: str, expected: list[str]) -> None:
    assert codings(value) == expected


# --- Accept ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ("application/json", True),
        ("APPLICATION/Json", True),
        ("application/json; charset=utf-8", True),
        ("application/*", True),
        ("application/json, */*", True),
        ("application/json, text/plain, */*", True),
        ("application/json;q=0.5, */*;q=0.1", True),
        ("text/event-stream;q=0.5, application/json", True),
        ("text/event-stream;q=0, */*", True),
        ('text/html;a="x, text/event-stream", application/json', True),
        ("application/json;q=0.5;q=0.5", True),
        ("application/json, nonsense, a/b;q=x", True),
        ("application/json;q=0.001", True),
        ("", False),
        ("*/*", False),
        ("text/event-stream", False),
        ("text/*, application/*", False),
        ("text/event-stream, application/json", False),
        ("application/json, text/event-stream", False),
        ("application/json;q=0.9, text/event-stream", False),
        ("application/json;q=0.1, */*", False),
        ("application/json;q=0", False),
        ("application/json;q=0, */*", False),
        ("application/json;q=1.001, */*", False),
        ("application/json-patch+json", False),
        ("x-application/json", False),
        ('text/html;a="application/json"', False),
        ("text/html", False),
    ],
)
def test_accept_asks_for_json_rather_than_a_stream(*, value: str, json: bool) -> None:
    assert json == prefers(value, JSON, STREAM)


# --- Authorization and Cookie ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Bearer a.b.c", ["a.b.c"]),
        ("bearer   a.b.c  ", ["a.b.c"]),
        ("BEARER a.b.c", ["a.b.c"]),
        ("Bearer", [""]),
        ("Bearer ", [""]),
        ("Basic dXNlcjpwYXNz", []),
        ("Basic dXNlcjpwYXNz, Bearer a.b.c", ["a.b.c"]),
        ("Bearer a.b.c, Bearer a.b.c", ["a.b.c", "a.b.c"]),
        ("Bearer a.b.c,Bearer d.e.f", ["a.b.c", "d.e.f"]),
        ('Digest username="Bearer x", realm="a, Bearer y", response=1', []),
        ("Bearerx a.b.c", []),
        ("xBearer a.b.c", []),
        ("a.b.c", []),
        ("", []),
    ],
)
def test_bearer_tokens_are_those_of_the_scheme_bearer(value: str, expected: list[str]) -> None:
    assert bearer_tokens(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("t=1", ["1"]),
        ("a=b; t=1; c=d", ["1"]),
        ("a=b;t=1;c", ["1"]),
        ('t="1"', ["1"]),
        ("t=a=b=", ["a=b="]),
        (" t = 1 ", ["1"]),
        ("t=1; t=2", ["1", "2"]),
        ("t=", []),
        ('t=""', [""]),
        ("T=1; xt=1; t", []),
        ('x="; t=1"', ['1"']),
        ("", []),
    ],
)
def test_cookies_are_found_by_their_whole_name(value: str, expected: list[str]) -> None:
    assert cookies(value, "t") == expected


# --- whatever no table has -------------------------------------------------------------------


@given(value=VALUES)
def test_no_value_is_a_failure(value: str) -> None:
    try:
        media_type, _ = content_type(value)
    except Malformed:
        pass
    else:
        assert value.lower().startswith(media_type)
        assert content_type(f"{value}, {value}") == content_type(value)
    assert not (prefers(value, JSON, STREAM) and prefers(value, STREAM, JSON))
    assert all(token in value for token in bearer_tokens(value))
    assert isinstance(cookies(value, "t"), list)
    assert isinstance(codings(value), list)


# --- If-None-Match ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("", set()),
        ('"a"', {'"a"'}),
        ('"a", W/"b"', {'"a"', '"b"'}),
        ('""', {'""'}),
        ('"a', set()),
        ("a", set()),
        ("*", set()),
    ],
)
def test_entity_tags(value: str, tags: set[str]) -> None:
    assert tags == entity_tags(value)
