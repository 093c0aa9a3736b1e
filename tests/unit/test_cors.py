"""What pages of other origins may do: a table of origins."""

from __future__ import annotations

import pytest

from broadcasterd.api.cors import is_preflight, shared_with

ONE, ANY = ("https://example.org",), ("*",)
NONE: tuple[str, ...] = ()
ASKS = {"access-control-request-method": "POST"}


@pytest.mark.parametrize(
    ("allowed", "origin", "told", "with_credentials"),
    [
        (NONE, "https://example.org", None, False),
        (ONE, "https://example.org", "https://example.org", True),
        (ONE, "https://example.org:444", None, False),
        (ONE, "https://evil.example", None, False),
        (ONE, "null", None, False),
        (ONE, None, None, False),
        (ANY, "https://anything.example", "*", False),
        (ANY, None, "*", False),
        (ONE + ANY, "https://example.org", "https://example.org", True),
        (ONE + ANY, "https://other.example", "*", False),
    ],
)
def test_an_answer_is_shared_with_the_origins_that_are_allowed(
    *, allowed: tuple[str, ...], origin: str | None, told: str | None, with_credentials: bool
) -> None:
    fields = shared_with("GET", {} if origin is None else {"origin": origin}, allowed)

    assert told == fields.get("Access-Control-Allow-Origin")
    assert with_credentials == ("Access-Control-Allow-Credentials" in fields)
    assert "Access-Control-Allow-Methods" not in fields


@pytest.mark.parametrize("origin", ["https://example.org", "https://evil.example"])
def test_a_cache_is_told_that_the_answer_depends_on_the_origin(origin: str) -> None:
    assert "Origin" == shared_with("GET", {"origin": origin}, ONE)["Vary"]
    assert {} == shared_with("GET", {"origin": origin}, NONE)


@pytest.mark.parametrize(
    ("method", "headers", "allowed", "is_one"),
    [
        ("OPTIONS", ASKS, ONE, True),
        ("OPTIONS", ASKS, NONE, False),
        ("OPTIONS", {}, ONE, False),
        ("POST", ASKS, ONE, False),
    ],
)
def test_a_preflight_is_known(
    *, method: str, headers: dict[str, str], allowed: tuple[str, ...], is_one: bool
) -> None:
    assert is_one == is_preflight(method, headers, allowed)


def test_a_preflight_is_told_what_may_be_sent() -> None:
    fields = shared_with("OPTIONS", {"origin": "https://example.org"}, ONE)

    assert {"GET", "POST", "DELETE"} == set(fields["Access-Control-Allow-Methods"].split(", "))
    assert "Last-Event-ID" in fields["Access-Control-Allow-Headers"]
    assert int(fields["Access-Control-Max-Age"]) > 0
