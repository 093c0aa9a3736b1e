"""The heads of responses, byte by byte."""

from __future__ import annotations

import time

import h11
import pytest

from broadcasterd.server.headers import SECURITY_HEADERS
from broadcasterd.server.responses import encode_head, has_no_body

PLAIN = (b"content-type", b"text/plain")
LENGTH = (b"content-length", b"2")


def parsed(data: bytes) -> h11.Response:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.receive_data(data)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    return response


def test_a_head_has_what_was_said_then_what_every_response_has() -> None:
    response = parsed(encode_head(200, [PLAIN, LENGTH], closes=False))

    assert (200, b"OK", b"1.1") == (response.status_code, response.reason, response.http_version)
    *fields, (last, _) = response.headers
    assert [PLAIN, LENGTH, *SECURITY_HEADERS] == fields
    assert b"date" == last


def test_the_date_is_that_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    for now, date in [(0.9, b"00:00:00"), (1.0, b"00:00:01")]:
        monkeypatch.setattr(time, "time", lambda now=now: now)
        head = encode_head(200, [], closes=False)
        assert b"date: Thu, 01 Jan 1970 %b GMT\r\n\r\n" % date == head[-len("date: ") - 33 :]


def test_the_last_response_says_so_once() -> None:
    close = (b"connection", b"close")

    assert close not in list(parsed(encode_head(200, [LENGTH], closes=False)).headers)
    for fields in ([LENGTH], [close, LENGTH]):
        assert 1 == list(parsed(encode_head(200, fields, closes=True)).headers).count(close)


def test_what_a_response_brings_is_not_added_again() -> None:
    policy = (b"content-security-policy", b"sandbox")
    found = [
        value
        for name, value in parsed(encode_head(200, [policy], closes=False)).headers
        if name == policy[0]
    ]

    assert [policy[1]] == found


def test_a_field_is_never_two() -> None:
    for value in (b"a\r\nset-cookie: b", b"a\nb", b"a\rb"):
        with pytest.raises(ValueError, match="line break"):
            encode_head(200, [(b"x", value)], closes=False)
        with pytest.raises(ValueError, match="line break"):
            encode_head(200, [(value, b"x")], closes=False)


def test_the_fields_that_were_handed_in_are_left_alone() -> None:
    fields = [LENGTH]
    encode_head(200, fields, closes=True)

    assert [LENGTH] == fields


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [("GET", 200, False), ("HEAD", 200, True), ("GET", 204, True), ("POST", 304, True)],
)
def test_which_responses_have_no_body(method: str, status: int, *, expected: bool) -> None:
    assert expected is has_no_body(method, status)
