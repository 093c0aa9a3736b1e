"""Every wait that the daemon, or its client, asks for or keeps to has a floor and a cap.

At every input: no wait is zero, none overflows, none is for ever. Those who publish, and upstreams
that are relayed, cannot have others come back sooner.
"""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broadcasterd.access.ratelimit import RateLimiter
from broadcasterd.api.formats import RelayedEvents, encode
from broadcasterd.api.posted import parse_json
from broadcasterd.broadcast.hub import Hub
from broadcasterd.client import connection
from broadcasterd.config import ConfigError, Sessions, from_mapping
from broadcasterd.core.event import MAX_RETRY_MS, Event
from broadcasterd.errors import MAX_RETRY_AFTER_S, TooMany, Unavailable
from tests.support.broadcast import in_force
from tests.unit.test_client import ENDED, answer, follow, stream

ANY_NUMBER = st.floats(min_value=0) | st.integers(0, 10**400)
FAILURES = st.integers(0, 10**6)

patient = settings(deadline=None)  # the machine may be busy with other tests


# --- what clients of a stream are told -------------------------------------------------------


def told(block: bytes) -> list[int]:
    return [int(ms) for ms in re.findall(rb"^retry: ([0-9]+)$", block, re.MULTILINE)]


@given(asked=st.integers(0, MAX_RETRY_MS), least=st.integers(1, MAX_RETRY_MS))
@example(asked=0, least=500)
def test_no_publisher_can_ask_for_less_than_the_least(asked: int, least: int) -> None:
    limits = Sessions(min_retry_ms=least)

    assert told(encode(Event("x", retry=asked), limits).block) == [max(asked, least)]


@pytest.mark.parametrize("body", [b'{"data": 1}', b'[{"data": 1}, {"data": "retry: 1"}]'])
def test_who_asks_for_nothing_changes_nothing(body: bytes) -> None:
    assert [told(encode(event, Sessions()).block) for event in parse_json(body)] == [
        []
    ] * body.count(b"data")


@given(retry=st.from_regex(rb"[0-9]{1,40}", fullmatch=True))
@example(retry=b"0")
@example(retry=b"86400000")
def test_the_reconnection_time_of_an_upstream_is_not_passed_on(retry: bytes) -> None:
    relay = RelayedEvents(1000)
    events = list(relay.feed(b"retry: %b\ndata: 1\n\nretry: %b\n\ndata: 2\n\n" % (retry, retry)))

    assert events == [Event("1", "message"), Event("2", "message")]


@given(retry_ms=st.integers(1, MAX_RETRY_MS))
@example(retry_ms=MAX_RETRY_MS)
def test_who_is_sent_away_is_told_a_time_within_bounds(retry_ms: int) -> None:
    hub = Hub(in_force(retry_ms=retry_ms))

    assert retry_ms <= hub.subscribers.jittered_retry_ms() <= min(2 * retry_ms, MAX_RETRY_MS)


@pytest.mark.parametrize("key", ["retry_ms", "min_retry_ms"])
@pytest.mark.parametrize("value", [0, -1, MAX_RETRY_MS + 1, 10**30])
def test_the_settings_keep_within_bounds(key: str, value: int) -> None:
    with pytest.raises(ConfigError):
        from_mapping({"sessions": {key: value}})


# --- Retry-After -----------------------------------------------------------------------------


@given(wait=st.floats() | st.integers(-(10**400), 10**400))
@example(wait=math.inf)
@example(wait=math.nan)
@example(wait=5e-324)
def test_retry_after_is_from_a_second_to_an_hour(wait: float) -> None:
    for problem in (TooMany("x", retry_after=wait), Unavailable("x", retry_after=wait)):
        seconds = int(problem.headers["Retry-After"])

        assert 1 <= seconds <= MAX_RETRY_AFTER_S
        if 1 <= wait <= MAX_RETRY_AFTER_S:
            assert seconds == math.ceil(wait)


@given(
    rate=st.floats(0.001, 1e9),
    burst=st.integers(1, 2**63),
    taken=st.lists(st.integers(1, 2**63), max_size=5),
)
def test_a_rate_limit_never_has_to_be_waited_for_for_ever(
    rate: float, burst: int, taken: list[int]
) -> None:
    limiter = RateLimiter(rate, burst, max_keys=10, clock=lambda: 1e6)

    for amount in taken:
        assert 0 <= limiter.take("a", amount) < math.inf


# --- tail ------------------------------------------------------------------------------------


@patient
@given(retry=ANY_NUMBER, failures=FAILURES, at_least=ANY_NUMBER)
@example(retry=0, failures=0, at_least=0)
@example(retry=3, failures=10**6, at_least=0)
@example(retry=math.inf, failures=10**6, at_least=math.inf)
def test_tail_waits_as_long_as_it_was_told_within_bounds(
    retry: float, failures: int, at_least: float
) -> None:
    seconds = connection.backoff(retry, failures, at_least=at_least)

    assert connection.MIN_WAIT <= seconds <= connection.MAX_WAIT
    assert seconds >= min(max(retry, at_least), connection.MAX_WAIT)
    assert seconds <= max(retry, at_least, connection.MAX_BACKOFF)


@pytest.mark.parametrize("hint", ["0", "86400000", "9" * 30, "9" * 500, "9" * 5000])
def test_tail_survives_every_hint_of_a_server(hint: str) -> None:
    _, waits, _ = follow(
        answer(503, extra=f"Retry-After: {hint}\r\n"),
        stream(f"retry: {hint}", "id: a-1", "data: 1", ""),
        ENDED,
    )

    assert len(waits) == 2
    assert all(connection.MIN_WAIT <= wait <= connection.MAX_WAIT for wait in waits)
