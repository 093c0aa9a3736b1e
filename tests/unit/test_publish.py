"""Publishing: bodies that are events, answers to others, and the part of a stream that stands."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping

import pytest
import trio
import trio.testing

from broadcasterd.access.grants import EVERYONE, Grant
from broadcasterd.api.publish import publish
from broadcasterd.api.request import Head
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.hub import Hub
from broadcasterd.config import Config, Server, Sessions, Settings
from broadcasterd.errors import Problem
from tests.support.broadcast import in_force, make_hub, retained, start_hub
from tests.support.following import Pieces

MAX_BODY = 100_000
MAX_HISTORY = 50_000

JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
STREAM = "text/event-stream"


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub."""
    config = Config(
        server=Server(max_body_bytes=MAX_BODY), sessions=Sessions(max_history_bytes=MAX_HISTORY)
    )
    return await start_hub(nursery, make_hub(Settings(config)))


def pieces(body: bytes, size: int = MAX_BODY) -> AsyncIterable[bytes]:
    """Return a body that comes so many bytes at a time."""
    rest = iter([body[start : start + size] for start in range(0, len(body), size)])

    async def take() -> bytes | None:
        return next(rest, None)

    return Pieces(take)


async def post(
    hub: Hub,
    body: bytes | AsyncIterable[bytes],
    content_type: str = JSON,
    *,
    headers: Mapping[str, str] | None = None,
    event: str = "",
    grant: Grant = EVERYONE,
) -> dict[str, object]:
    """Publish a body to the session "s"; return what the publisher is told."""
    fields = {"content-type": content_type, **(headers or {})}
    head = Head("POST", "/", (("event", event),), fields, "127.0.0.1", "1.1")
    stream = pieces(body) if isinstance(body, bytes) else body
    told = await publish(head, "s", stream, grant=grant, hub=hub)
    return told.document()


async def refusal(
    hub: Hub, body: bytes | AsyncIterable[bytes], content_type: str = JSON, **request: object
) -> Problem:
    """Publish a body that is refused; return why."""
    with pytest.raises(Problem) as refused:
        await post(hub, body, content_type, **request)  # type: ignore[arg-type] # as it is written
    return refused.value


async def status(hub: Hub, body: bytes, content_type: str) -> int:
    """Publish a body; return the status of the answer."""
    try:
        await post(hub, body, content_type)
    except Problem as problem:
        return problem.status
    return 200


def accepted(hub: Hub) -> list[str]:
    """Return the data of all that was accepted."""
    return retained(hub.find("s")) if "s" in hub.sessions else []


# --- one request, one body -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "broadcast"),
    [
        pytest.param('"text"', "text", id="a string as it is"),
        pytest.param(r'"\u00e9\ud83d\ude00\"\\\/"', 'é😀"\\/', id="escapes resolved"),
        pytest.param('""', "", id="an empty string"),
        pytest.param('"a\\nb\\r\\nc\\rd"', "a\nb\nc\nd", id="every kind of line break"),
        pytest.param('"\\n"', "\n", id="nothing but a line break"),
        pytest.param('" leading"', " leading", id="leading space"),
        pytest.param('"id: 5\\ndata: x\\n\\nevent: y"', "id: 5\ndata: x\n\nevent: y", id="fields"),
        pytest.param('"\\u0000"', "\0", id="NUL"),
        pytest.param("null", "null", id="null"),
        pytest.param('{ "a" : [ 1, true, null ] }', '{"a":[1,true,null]}', id="compact"),
        pytest.param(
            '{"b":123456789012345678901234567890,"a":-0.10,"c":1E+400,"d":1.0}',
            '{"b":123456789012345678901234567890,"a":-0.10,"c":1E+400,"d":1.0}',
            id="every digit of a number",
        ),
        pytest.param("12345678901234567890123", "12345678901234567890123", id="a big number"),
        pytest.param('{"a":1,"a":2}', '{"a":1,"a":2}', id="names twice"),
        pytest.param('{"\\u00e9":"\\n"}', '{"\\u00e9":"\\n"}', id="escapes within"),
    ],
)
async def test_data_is_broadcast_as_it_was_meant(hub: Hub, sent: str, broadcast: str) -> None:
    await post(hub, b'{"data": %b}' % sent.encode())

    assert accepted(hub) == [broadcast]


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        pytest.param("", b"{}", 415, id="no content type"),
        pytest.param("application/octet-stream", b"{}", 415, id="bytes"),
        pytest.param("application/x-www-form-urlencoded", b"a=b", 415, id="a form, as curl -d"),
        pytest.param("application/xml", b"<a/>", 415, id="XML"),
        pytest.param("text", b"a", 415, id="no type at all"),
        pytest.param("text/plain; charset=iso-8859-1", b"a", 415, id="Latin-1"),
        pytest.param("application/json; charset=utf-16", b"a", 415, id="UTF-16"),
        pytest.param("application/json", b"", 400, id="nothing"),
        pytest.param("application/json", b"{", 400, id="not JSON"),
        pytest.param("application/json", b'{"data": 01}', 400, id="not a number"),
        pytest.param("application/json", b'{"data": NaN}', 400, id="NaN"),
        pytest.param("application/json", b'{"data": [1,]}', 400, id="a comma too many"),
        pytest.param("application/json", b'{"data": 1}{"data": 2}', 400, id="two documents"),
        pytest.param("application/json", b'{"data": "\xff"}', 400, id="not UTF-8"),
        pytest.param("application/json", b'{"data": {"a": "\xc3"}}', 400, id="not UTF-8 within"),
        pytest.param("application/json", rb'{"data": "\ud800"}', 422, id="half a surrogate pair"),
        pytest.param("text/plain", b"\xe9", 400, id="text that is not UTF-8"),
        pytest.param("application/json", b"1", 422, id="a number"),
        pytest.param("application/json", b'["a"]', 422, id="an array of strings"),
        pytest.param("application/json", b'[[{"data": 1}]]', 422, id="an array of arrays"),
        pytest.param("application/json", b'{"event": "a"}', 422, id="no data"),
        pytest.param("application/json", b'{"data": 1, "id": "a"}', 422, id="an unknown field"),
        pytest.param("application/json", b'{"data": 1, "event": 5}', 422, id="event a number"),
        pytest.param("application/json", b'{"data": 1, "retry": "5"}', 422, id="retry a string"),
        pytest.param("application/json", b'{"data": 1, "retry": 1.5}', 422, id="half a ms"),
        pytest.param("application/json", b'{"data": 1, "retry": true}', 422, id="retry true"),
        pytest.param("application/json", b'{"data": 1, "retry": -1}', 422, id="negative retry"),
        pytest.param("application/json", b'{"data": 1, "ttl": 0}', 422, id="no time to live"),
        pytest.param("application/json", b'{"data": 1, "ttl": 1e999}', 422, id="infinite ttl"),
        pytest.param(
            "application/json", b'{"data": 1, "idempotency_key": ""}', 422, id="an empty key"
        ),
        pytest.param(
            "application/json",
            b'{"data": 1, "idempotency_key": "%b"}' % (b"k" * 257),
            422,
            id="a long key",
        ),
        pytest.param(
            "application/json", b'{"data": 1, "event": "%b"}' % (b"e" * 257), 422, id="a long type"
        ),
        pytest.param("application/json", rb'{"data": 1, "event": "a\nb"}', 400, id="LF in event"),
        pytest.param("application/json", rb'{"data": 1, "event": "a\rb"}', 400, id="CR in event"),
        pytest.param("application/json", rb'{"data": 1, "event": "\u0000"}', 400, id="NUL in it"),
        pytest.param(
            "application/json", b'{"data": %b}' % (b"[" * 50_000 + b"]" * 49_000), 400, id="deep"
        ),
        pytest.param("application/json", b"[" * 90_000, 400, id="an array of arrays of arrays"),
        pytest.param(
            "application/json", b'{"data": "%b"}' % (b"x" * MAX_HISTORY), 413, id="over the log"
        ),
        pytest.param("text/plain", b"x" * MAX_HISTORY, 413, id="text over the log"),
        pytest.param("text/plain", b"x" * (MAX_BODY + 1), 413, id="over the limit"),
    ],
)
async def test_a_bad_body_is_refused(hub: Hub, content_type: str, body: bytes, status: int) -> None:
    problem = await refusal(hub, body, content_type)

    assert problem.status == status
    assert problem.detail
    assert accepted(hub) == []


@pytest.mark.parametrize("depth", [100, 500, 900, 990, 1000, 1010, 1100, 5000])
async def test_nesting_is_taken_or_refused_but_never_a_failure(hub: Hub, depth: int) -> None:
    event = b'{"data": %b}' % (b"[" * depth + b"]" * depth)
    found = [
        await status(hub, body, kind)
        for body, kind in [(event, JSON), (event, NDJSON), (b"[%b]" % event, JSON)]
    ]

    assert set(found) <= {200, 400}


async def test_the_type_of_a_text_is_checked_as_well(hub: Hub) -> None:
    assert 400 == (await refusal(hub, b"a", TEXT, event="a\nb")).status
    assert 422 == (await refusal(hub, b"a", TEXT, event="e" * 257)).status


async def test_a_compressed_body_is_refused(hub: Hub) -> None:
    compressed = await refusal(hub, b"\x1f\x8b", headers={"content-encoding": "gzip"})

    assert compressed.status == 415


async def test_of_an_array_with_a_bad_event_nothing_is_accepted(hub: Hub) -> None:
    wrong = rb'[{"data": 1}, {"data": 2}, {"data": 3, "event": "a\nb"}]'
    shape = b'[{"data": 1}, {"data": 2}, {"data": 3, "x": 1}]'
    large = b'[{"data": 1}, {"data": "%b"}]' % (b"x" * MAX_HISTORY)

    found = await refusal(hub, wrong)
    assert (found.status, found.extra["index"]) == (400, 2)
    found = await refusal(hub, shape)
    assert (found.status, found.extra["index"]) == (422, 2)
    assert 413 == (await refusal(hub, large)).status
    assert accepted(hub) == []


async def test_a_key_that_makes_an_event_too_large_refuses_the_whole_array(hub: Hub) -> None:
    overhead = 64 + 32  # what the log adds to an event without a key, at most
    data = b"x" * (MAX_HISTORY - overhead - len("data: \n\n") - 50)
    body = b'[{"data": 1}, {"data": "%b", "idempotency_key": "%b"}]' % (data, b"k" * 200)

    assert 413 == (await refusal(hub, body)).status
    assert accepted(hub) == []
    await post(hub, b'{"data": "%b"}' % data)


# --- bodies that are streams -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param(b"not JSON", 400, id="not JSON"),
        pytest.param(b'{"data": 1, "unknown": 2}', 422, id="an unknown field"),
        pytest.param(b'{"data": "\xff"}', 400, id="not UTF-8"),
        pytest.param(rb'{"data": 1, "event": "\r"}', 400, id="CR in event"),
        pytest.param(b'{"data": "%b"}' % (b"x" * MAX_HISTORY), 413, id="over the log"),
        pytest.param(
            b'{"data": "%b", "idempotency_key": "%b"}' % (b"x" * (MAX_HISTORY - 250), b"k" * 200),
            413,
            id="over the log with its key",
        ),
        pytest.param(b'{"data": "%b"}' % (b"x" * MAX_BODY), 413, id="over the limit"),
        pytest.param(b'{"data": ' + b"[" * 40_000, 400, id="too deep"),
    ],
)
@pytest.mark.parametrize("size", [1 << 20, 1000], ids=["at once", "in pieces"])
async def test_what_comes_before_a_bad_line_stands(
    hub: Hub, size: int, line: bytes, status: int
) -> None:
    body = b'{"data": "a"}\n\n{"data": "b"}\n' + line + b'\n{"data": "c"}\n'
    problem = await refusal(hub, pieces(body, size), NDJSON)
    log = hub.find("s").log

    assert problem.status == status
    assert problem.extra["line"] == 4
    assert problem.extra["accepted"] == 2
    assert [problem.extra["first_id"], problem.extra["last_id"]] == [log.id_of(1), log.id_of(2)]
    assert accepted(hub) == ["a", "b"]


async def test_what_comes_before_a_bad_relayed_event_stands(hub: Hub) -> None:
    body = b"data: a\n\ndata: b\n\nevent: %b\ndata: c\n\ndata: d\n\n" % (b"e" * 300)
    problem = await refusal(hub, body, STREAM)

    assert problem.status == 422
    assert (problem.extra["event"], problem.extra["accepted"]) == (3, 2)
    assert accepted(hub) == ["a", "b"]


async def test_a_body_that_never_has_to_be_waited_for_does_not_outlive_its_grant(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    clock = Clock(wall=lambda: 1764000000.0 + trio.current_time())
    hub = await start_hub(nursery, make_hub(in_force(max_history_events=1000), clock=clock))

    async def a_line_a_second() -> AsyncIterator[bytes]:
        for number in range(1000):
            mock_clock.jump(1)
            yield b'{"data": %d}\n' % number

    with pytest.raises(Problem) as refused:
        await post(
            hub, a_line_a_second(), NDJSON, grant=Grant(expires_at=hub.clock.unix_now() + 60.5)
        )

    assert refused.value.status == 401
    assert refused.value.extra["accepted"] == len(retained(hub.find("s"))) == 60
