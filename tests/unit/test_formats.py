"""The formats of bodies: which type is read how, and the same events however a stream is cut."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.api import formats
from broadcasterd.api.formats import (
    EventStream,
    NdjsonEvents,
    RelayedEvents,
    encode,
    media_type_of,
    parse_text,
    stream_of,
)
from broadcasterd.api.posted import parse_json
from broadcasterd.api.request import Head
from broadcasterd.config import Sessions
from broadcasterd.core.event import Event
from broadcasterd.errors import BadRequest, InvalidEvent, Problem, TooLarge

MOST = 1000
LIMITS = Sessions(max_history_bytes=MOST)


def head(content_type: str, **fields: str) -> Head:
    """Return the head of a request with a body of this type."""
    return Head("POST", "/", (), {"content-type": content_type, **fields}, "127.0.0.1", "1.1")


@pytest.mark.parametrize(
    ("field", "media_type"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=UTF-8", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/event-stream;charset=utf-8", "text/event-stream"),
        ("text/plain; charset=us-ascii", "text/plain"),
        ("text/markdown", "text/markdown"),
    ],
)
def test_a_type_is_known_by_its_name_alone(field: str, media_type: str) -> None:
    assert media_type == media_type_of(head(field))


@pytest.mark.parametrize(
    "field", ["", "json", "application/xml", "image/png", "text/plain; charset=latin-1"]
)
def test_any_other_is_refused(field: str) -> None:
    with pytest.raises(Problem) as refused:
        media_type_of(head(field))

    assert 415 == refused.value.status


def test_a_compressed_body_is_refused() -> None:
    compressed = {"content-encoding": "gzip"}
    with pytest.raises(Problem, match="compressed"):
        media_type_of(head("application/json", **compressed))


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("application/x-ndjson", NdjsonEvents),
        ("text/event-stream", RelayedEvents),
        ("application/json", type(None)),
        ("text/plain", type(None)),
    ],
)
def test_two_types_are_streams(media_type: str, kind: type[object]) -> None:
    assert isinstance(stream_of(media_type, head(media_type), max_event_bytes=MOST), kind)


def test_an_array_is_its_events_and_a_text_is_one() -> None:
    array = b'[{"data": 1}, {"data": "two", "event": "e"}]'

    assert [Event("1"), Event("two", "e")] == list(parse_json(array))
    assert Event("1, 2") == parse_text(b"1, 2", head("text/plain"))


def test_of_an_array_the_bad_event_is_named() -> None:
    with pytest.raises(InvalidEvent) as refused:
        list(parse_json(b'[{"data": 1}, {"data": 2, "event": "\\n"}]'))

    assert {"index": 1} == refused.value.extra


@pytest.mark.parametrize("body", [b"\xff", b"{", b"[}", b""])
def test_what_is_no_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        list(parse_json(body))


def test_an_event_has_to_be_retained_and_encoded() -> None:
    assert b"data: x\n\n" == encode(Event("x"), LIMITS).block
    with pytest.raises(TooLarge):
        encode(Event("x" * MOST), LIMITS)
    with pytest.raises(InvalidEvent, match="UTF-8"):
        encode(Event("\ud800"), LIMITS)


# --- however a stream is cut -----------------------------------------------------------------

NDJSON = b'{"data": "\xc3\xa9"}\n\n  \n{"data": {"a": [1, 2]}, "event": "e"}\r\n{"data": "last"}'
RELAYED = b"event: e\r\ndata: \xc3\xa9\r\n\r\n: a comment\ndata: 1\ndata: 2\n\ndata: no end"


def events(stream: EventStream, *pieces: bytes) -> Iterator[Event]:
    """Yield the events of a body in pieces."""
    for piece in pieces:
        yield from stream.feed(piece)
    yield from stream.finish()


@pytest.mark.parametrize(
    ("media_type", "body", "expected"),
    [
        ("application/x-ndjson", NDJSON, [Event("é"), Event('{"a":[1,2]}', "e"), Event("last")]),
        ("text/event-stream", RELAYED, [Event("é", "e"), Event("1\n2", "message")]),
    ],
)
@given(cuts=st.lists(st.integers(0, max(len(NDJSON), len(RELAYED)))))
def test_events_are_the_same_however_the_body_is_cut(
    media_type: str, body: bytes, expected: list[Event], cuts: list[int]
) -> None:
    bounds = [0, *sorted(cuts), len(body)]
    pieces = [body[a:b] for a, b in pairwise(bounds)]
    stream = stream_of(media_type, head(media_type), max_event_bytes=MOST)
    assert stream is not None

    assert expected == list(events(stream, *pieces))


def test_a_line_that_is_too_long_is_named_before_its_end() -> None:
    stream = NdjsonEvents(MOST)
    assert [Event("1")] == list(stream.feed(b'{"data": 1}\n'))
    with pytest.raises(TooLarge):
        list(stream.feed(b"x" * (MOST + 1)))

    assert {"line": 2} == stream.where()


def test_what_is_kept_of_a_line_is_counted() -> None:
    stream = NdjsonEvents(MOST)
    list(stream.feed(b'{"data": 1}\n{"da'))
    kept = stream.kept_bytes
    list(stream.feed(b'ta": 2}\n'))

    assert len(b'{"da') <= kept <= 16  # with room to grow
    assert 0 == stream.kept_bytes


def test_an_idempotency_key_is_its_subjects_own() -> None:
    event = Event("a", idempotency_key="1")
    keys = {encode(event, Sessions(), subject).key for subject in (None, "alice", "bob")}

    assert len(keys) == 3
    assert encode(event, Sessions(), "bob").key in keys
    assert encode(Event("a"), Sessions(), "bob").key is None


# --- what would take long ------------------------------------------------------------------------


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n"])
def test_a_megabyte_of_line_breaks_is_refused_before_it_is_encoded(
    line_break: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "encode_block", None)  # it would fail if it were called
    with pytest.raises(TooLarge):
        encode(Event(line_break * 500_000), Sessions())


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n"])
def test_line_breaks_that_fit_are_taken(line_break: str) -> None:
    taken = encode(Event(line_break * 10_000), Sessions(max_history_bytes=70_600))

    assert 7 * 10_000 + len("data: \n\n") == len(taken.block)
