"""An event is checked when it is made, so that no holder of one need check it."""

from __future__ import annotations

from http import HTTPStatus
from math import inf, nan

import pytest

from broadcasterd.core.event import (
    MAX_EVENT_NAME_CHARS,
    MAX_IDEMPOTENCY_KEY_CHARS,
    MAX_RETRY_MS,
    Event,
)
from broadcasterd.errors import InvalidEvent


def test_only_data_is_needed() -> None:
    event = Event("hello")

    assert event.data == "hello"
    assert (
        event.event,
        event.retry,
        event.ttl,
        event.idempotency_key,
    ) == (None, None, None, None)


@pytest.mark.parametrize("data", ["", "a\r\nb\rc\nd", "nul \0", "\ufeff", "🦆"])
def test_data_may_be_any_text(data: str) -> None:
    assert Event(data).data == data


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0", "\n", "\r\n"])
def test_a_type_with_a_line_break_or_nul_is_a_bad_request(name: str) -> None:
    with pytest.raises(InvalidEvent, match="CR, LF or NUL") as refused:
        Event("x", name)

    assert refused.value.status == HTTPStatus.BAD_REQUEST


def test_a_type_may_hold_any_other_character() -> None:
    name = "a: b\x0b\x85\u2028é"

    assert Event("x", name).event == name


def test_a_type_may_be_as_long_as_allowed_and_no_longer() -> None:
    Event("x", "e" * MAX_EVENT_NAME_CHARS)

    with pytest.raises(InvalidEvent, match="at most 256") as refused:
        Event("x", "e" * (MAX_EVENT_NAME_CHARS + 1))

    assert refused.value.status == HTTPStatus.UNPROCESSABLE_ENTITY


@pytest.mark.parametrize("retry", [0, 1, MAX_RETRY_MS])
def test_retry_may_be_anything_up_to_a_day(retry: int) -> None:
    assert Event("x", retry=retry).retry == retry


OWN = ["broadcaster.gap", "broadcaster.end", "broadcaster.", "broadcaster.anything"]


@pytest.mark.parametrize("name", OWN)
def test_the_names_of_the_daemons_own_events_are_refused(name: str) -> None:
    with pytest.raises(InvalidEvent, match=r"types that begin with broadcaster\. are the daemon's"):
        Event("x", name)


@pytest.mark.parametrize(
    "name", ["gap", "end", "error", "broadcaster", "Broadcaster.end", " broadcaster."]
)
def test_every_other_name_is_the_applications(name: str) -> None:
    assert Event("x", name).event == name


@pytest.mark.parametrize("retry", [-1, MAX_RETRY_MS + 1])
def test_retry_out_of_bounds_is_refused(retry: int) -> None:
    with pytest.raises(InvalidEvent, match="retry: expected 0 to 86400000"):
        Event("x", retry=retry)


@pytest.mark.parametrize("ttl", [0.001, 600, inf])
def test_ttl_may_be_any_time_above_zero(ttl: float) -> None:
    assert Event("x", ttl=ttl).ttl == ttl


@pytest.mark.parametrize("ttl", [0, -1, nan, -inf])
def test_ttl_must_be_above_zero(ttl: float) -> None:
    with pytest.raises(InvalidEvent, match="ttl: expected a number of seconds above 0"):
        Event("x", ttl=ttl)


@pytest.mark.parametrize("length", [1, MAX_IDEMPOTENCY_KEY_CHARS])
def test_an_idempotency_key_has_a_length_within_bounds(length: int) -> None:
    key = "k" * length

    assert Event("x", idempotency_key=key).idempotency_key == key


@pytest.mark.parametrize("length", [0, MAX_IDEMPOTENCY_KEY_CHARS + 1])
def test_an_idempotency_key_of_any_other_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidEvent, match="idempotency_key: expected 1 to 256"):
        Event("x", idempotency_key="k" * length)
