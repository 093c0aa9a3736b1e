"""What pages of other origins may do: a table of origins, as browsers send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.api.cors import is_allowed, is_of_host, is_preflight, shared_with
from broadcasterd.config import ConfigError, Server, from_mapping

ONE, ANY = ("https://example.org",), ("*",)
NONE: tuple[str, ...] = ()
ASKS = {"access-control-request-method": "POST"}
ORIGIN = {"origin": "https://example.org"}


def server(allowed: tuple[str, ...], *more: str) -> Server:
    return Server(cors_origins=allowed, cors_headers=more)


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
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_an_answer_is_shared_with_the_origins_that_are_allowed(
    *,
    method: str,
    allowed: tuple[str, ...],
    origin: str | None,
    told: str | None,
    with_credentials: bool,
) -> None:
    fields = shared_with(method, {} if origin is None else {"origin": origin}, server(allowed))
    is_preflight = method == "OPTIONS"

    assert told == fields.get("Access-Control-Allow-Origin")
    assert with_credentials == ("Access-Control-Allow-Credentials" in fields)
    assert (told is not None and is_preflight) == ("Access-Control-Allow-Methods" in fields)
    assert (told is not None and not is_preflight) == ("Access-Control-Expose-Headers" in fields)


@pytest.mark.parametrize(
    ("allowed", "same", "others"),
    [
        (
            "https://example.org:443",
            ["https://example.org"],
            ["http://example.org", "https://example.org:80", "https://example.org:1443"],
        ),
        ("http://example.org:80", ["http://example.org"], ["https://example.org"]),
        ("http://example.org:8080", ["http://example.org:8080"], ["http://example.org"]),
        ("https://Example.ORG", ["https://example.org"], ["https://example.org.evil.example"]),
        ("http://[::1]:80", ["http://[::1]"], ["http://[::1]:8080"]),
        (
            "https://*.example.org",
            ["https://a.example.org", "https://a.b.example.org", "https://x-1.example.org"],
            [
                "https://example.org",
                "https://evilexample.org",
                "https://.example.org",
                "https://a..example.org",
                "http://a.example.org",
                "https://a.example.org:8443",
                "https://evil.example/.example.org",
                "https://a.example.org.evil.example",
            ],
        ),
        ("https://*.example.org:8443", ["https://a.example.org:8443"], ["https://a.example.org"]),
        ("*", [], ["https://example.org", "*", "null"]),  # any, and so none by its name
    ],
)
def test_origins_are_compared_as_browsers_send_them(
    allowed: str, same: list[str], others: list[str]
) -> None:
    from_mapping({"server": {"cors_origins": [allowed]}})

    assert [origin for origin in same if not is_allowed(origin, (allowed,))] == []
    assert [origin for origin in others if is_allowed(origin, (allowed,))] == []


@given(origin=st.text() | st.from_regex(r"https?://[a-z.*\[\]:0-9/-]*", fullmatch=True))
def test_no_other_origin_is_taken_for_one(origin: str) -> None:
    assert not is_allowed(origin, (*ONE, "*")) or origin in {*ONE, "https://example.org:443"}


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.org/",
        "https://a.*.example.org",
        "https://*",
        "https://*example.org",
        "*.example.org",
        "example.org",
        "https://müller.example",
        "https://example.org\n",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_by_the_configuration(origin: str) -> None:
    with pytest.raises(ConfigError, match="origins like"):
        from_mapping({"server": {"cors_origins": [origin]}})


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://example.org", "example.org", True),
        ("https://example.org", "Example.org:443", True),
        ("http://example.org", "example.org:80", True),
        ("http://example.org:8000", "example.org:8000", True),
        ("http://example.org:8000", "example.org", False),
        ("https://example.org", "example.org:80", False),
        ("https://evil.example", "example.org", False),
        ("null", "null", False),
        ("", "", False),
    ],
)
def test_a_page_of_this_host_is_known(*, origin: str, host: str, same: bool) -> None:
    assert same == is_of_host(origin, host)


@pytest.mark.parametrize("origin", ["https://example.org", "https://evil.example"])
def test_a_cache_is_told_that_the_answer_depends_on_the_origin(origin: str) -> None:
    assert "Origin" == shared_with("GET", {"origin": origin}, server(ONE))["Vary"]
    assert {} == shared_with("GET", {"origin": origin}, server(NONE))


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
    assert is_one == is_preflight(method, headers, server(allowed))


def test_a_preflight_is_told_what_may_be_sent() -> None:
    fields = shared_with("OPTIONS", ORIGIN, server(ONE))

    assert {"GET", "POST", "DELETE"} == set(fields["Access-Control-Allow-Methods"].split(", "))
    assert "Last-Event-ID" in fields["Access-Control-Allow-Headers"]
    assert int(fields["Access-Control-Max-Age"]) > 0


@pytest.mark.parametrize(
    ("allowed", "asked", "told"),
    [
        (ANY, "x-requested-with,x-api-key", "x-requested-with,x-api-key"),
        (ANY, "traceparent", "traceparent"),
        (ANY, "", None),
        (ANY, "a\x00b", None),
        (ANY, "x" * 2000, None),
        (ONE, "x-requested-with", None),
        (ONE + ANY, "x-requested-with", None),
    ],
)
def test_fields_are_echoed_where_no_cookie_can_come_along(
    allowed: tuple[str, ...], asked: str, told: str | None
) -> None:
    request = {**ORIGIN, "access-control-request-headers": asked}
    names = shared_with("OPTIONS", request, server(allowed, "X-More"))[
        "Access-Control-Allow-Headers"
    ]

    usual = "Authorization, Content-Type, Last-Event-ID, Cache-Control, X-More"
    assert names == (usual if told is None else told)


@pytest.mark.parametrize("field", ["Retry-After", "WWW-Authenticate"])
@pytest.mark.parametrize("allowed", [ONE, ANY])
def test_a_page_may_read_what_it_needs(allowed: tuple[str, ...], field: str) -> None:
    exposed = shared_with("GET", ORIGIN, server(allowed))["Access-Control-Expose-Headers"]

    assert field in exposed.split(", ")
