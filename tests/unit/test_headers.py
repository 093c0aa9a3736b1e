"""The header fields that every response has, unless it brings a policy of its own."""

from __future__ import annotations

from broadcasterd.server.headers import SECURITY_HEADERS, RawHeaders, secure


def test_what_is_missing_is_added() -> None:
    headers: RawHeaders = [(b"content-type", b"text/plain")]
    secure(headers)

    assert [(b"content-type", b"text/plain"), *SECURITY_HEADERS] == headers


def test_what_is_there_stays() -> None:
    own = (b"content-security-policy", b"default-src 'self'")
    headers: RawHeaders = [own]
    secure(headers)

    assert own in headers
    assert len(SECURITY_HEADERS) == len(headers)


def test_to_add_them_twice_is_to_add_them_once() -> None:
    headers: RawHeaders = []
    secure(headers)
    secure(headers)

    assert SECURITY_HEADERS == headers


def test_they_are_what_the_guidelines_ask_of_an_interface() -> None:
    fields = dict(SECURITY_HEADERS)

    assert b"nosniff" == fields[b"x-content-type-options"]
    assert b"no-referrer" == fields[b"referrer-policy"]
    assert b"default-src 'none'; frame-ancestors 'none'" == fields[b"content-security-policy"]
    assert b"same-origin" == fields[b"cross-origin-resource-policy"]
    assert b"strict-transport-security" not in fields
