"""The decoder of event streams: what the standard says, in whatever pieces it comes."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcasterd.core.decoder import Received, StreamDecoder, decode
from broadcasterd.core.wire import HEARTBEAT
from broadcasterd.errors import TooLarge
from tests.support import sse


def received_in_pieces(pieces: Iterable[bytes], *, max_event_chars: int = 10_000) -> list[Received]:
    """Decode a stream that arrives in these pieces."""
    decoder = StreamDecoder(max_event_chars=max_event_chars)
    return [event for piece in pieces for event in decoder.feed(piece)]


def cut(stream: bytes, *, at: Iterable[int]) -> list[bytes]:
    """Return the pieces of a stream that is cut at these places."""
    places = [0, *sorted(at), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(places)]


# --- decoding: by the standard, WHATWG HTML §9.2.6 -------------------------------------------


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", []),
        (b"data: x\n\n", [("x", "message", "")]),
        (b"data: x\r\n\r\n", [("x", "message", "")]),
        (b"data: x\r\r", [("x", "message", "")]),
        (b"data: a\rdata: b\ndata: c\r\n\r", [("a\nb\nc", "message", "")]),
        (b"data:x\n\n", [("x", "message", "")]),
        (b"data:  x\n\n", [(" x", "message", "")]),
        (b"data: :\n\n", [(":", "message", "")]),
        (b"data\n\n", [("", "message", "")]),
        (b"data:\n\n", [("", "message", "")]),
        (b"data\ndata\n\n", [("\n", "message", "")]),
        (b"data: a\ndata\ndata: b\n\n", [("a\n\nb", "message", "")]),
        (b"data: \0\n\n", [("\0", "message", "")]),
        (b"data: x", []),
        (b"data: x\n", []),
        (b"data: x\r\n", []),
        (b"data: x\n\ndata: unfinished\n", [("x", "message", "")]),
        (b"\n\n\r\n\r", []),
        (b": comment\n\n", []),
        (b":data: x\n\n", []),
        (b"data: a\n: comment\ndata: b\n\n", [("a\nb", "message", "")]),
        (b"Data: x\n\n", []),
        (b" data: x\n\n", []),
        (b"data : x\n\n", []),
        (b"unknown: x\ndata: y\n\n", [("y", "message", "")]),
        (b"event: a\ndata: x\n\n", [("x", "a", "")]),
        (b"event: a\nevent: b\ndata: x\n\n", [("x", "b", "")]),
        (b"event: a\nevent\ndata: x\n\n", [("x", "message", "")]),
        (b"event: a\n\ndata: x\n\n", [("x", "message", "")]),
        (b"event: a\ndata: x\n\ndata: y\n\n", [("x", "a", ""), ("y", "message", "")]),
        (b"id: 1\ndata: x\n\ndata: y\n\n", [("x", "message", "1"), ("y", "message", "1")]),
        (b"id: 1\n\ndata: x\n\n", [("x", "message", "1")]),
        (b"id: 1\ndata: x\n\nid\ndata: y\n\n", [("x", "message", "1"), ("y", "message", "")]),
        (b"id: 1\nid: 2\0\ndata: x\n\n", [("x", "message", "1")]),
        ("id: é\ndata: 🦆\n\n".encode(), [("🦆", "message", "é")]),
        (b"data: \x0b\x0c\x1c\n\n", [("\x0b\x0c\x1c", "message", "")]),
        ("data: \x85\u2028\u2029\n\n".encode(), [("\x85\u2028\u2029", "message", "")]),
        ("\ufeffdata: x\n\n".encode(), [("x", "message", "")]),
        ("\ufeff\ufeffdata: x\n\n".encode(), []),
        ("data: a\n\n\ufeffdata: b\n\n".encode(), [("a", "message", "")]),
        ("data: \ufeffx\n\n".encode(), [("\ufeffx", "message", "")]),
        ("\ufeff".encode(), []),
    ],
)
def test_a_stream_is_read_like_this(stream: bytes, expected: list[tuple[str, str, str]]) -> None:
    assert received_in_pieces([stream]) == [Received(*fields) for fields in expected]


@pytest.mark.parametrize(
    ("field", "retry"),
    [
        (b"retry: 0", 0),
        (b"retry: 3000", 3000),
        (b"retry:3000", 3000),
        (b"retry", None),
        (b"retry: ", None),
        (b"retry: -1", None),
        (b"retry: +1", None),
        (b"retry: 1.5", None),
        (b"retry: 1e3", None),
        (b"retry: 3000 ", None),
        (b"retry: 1_000", None),
        ("retry: ٣".encode(), None),
        (b"retry: 1234567890", None),
    ],
)
def test_retry_is_ascii_digits_or_nothing(field: bytes, retry: int | None) -> None:
    assert decode([field + b"\ndata: x\n\n"]) == [Received("x", "message", "", retry)]


def test_a_malformed_retry_leaves_the_one_before_it() -> None:
    assert decode([b"retry: 1\nretry: a\ndata: x\n\n"]) == [Received("x", "message", "", 1)]


def test_retry_is_of_one_event_only() -> None:
    first, second = decode([b"retry: 1\ndata: x\n\ndata: y\n\n"])

    assert (first.retry, second.retry) == (1, None)


# --- decoding: in pieces ---------------------------------------------------------------------

EVERYTHING = (
    "\ufeffretry: 10\r\n: comment\r\nid: é-1\r\nevent: größe\r\ndata: €🦆\r\ndata:\r\n\r\n"
    "data: cr\rdata: only\r\r"
    "data: mixed\n\r\n"
    "id: 2\n\n\n"
    "data: \ufeff\u2028\n\rdata: after\n\n"
    "data: unfinished\r\n"
).encode()

EVERYTHING_READ = [
    Received("€🦆\n", "größe", "é-1", 10),
    Received("cr\nonly", "message", "é-1"),
    Received("mixed", "message", "é-1"),
    Received("\ufeff\u2028", "message", "2"),
    Received("after", "message", "2"),
]


def test_the_whole_in_one_piece_gives_what_the_standard_says() -> None:
    *lines, _unfinished = re.split(r"\r\n|\r|\n", EVERYTHING.decode().removeprefix("\ufeff"))
    by_the_book = [(e.data, e.type, e.id) for e in sse.parse(lines)]

    assert received_in_pieces([EVERYTHING]) == EVERYTHING_READ
    assert by_the_book == [(e.data, e.event, e.last_event_id) for e in EVERYTHING_READ]


def test_byte_by_byte_gives_the_same() -> None:
    assert received_in_pieces(bytes([byte]) for byte in EVERYTHING) == EVERYTHING_READ


def test_cut_in_two_anywhere_gives_the_same() -> None:
    for place in range(len(EVERYTHING) + 1):
        assert received_in_pieces(cut(EVERYTHING, at=[place])) == EVERYTHING_READ, place


def test_cut_in_three_anywhere_gives_the_same() -> None:
    for place in range(len(EVERYTHING) + 1):
        for length in range(5):  # 0: an empty piece in between
            pieces = cut(EVERYTHING, at=[place, min(place + length, len(EVERYTHING))])
            assert received_in_pieces(pieces) == EVERYTHING_READ, (place, length)


FRAGMENTS = [
    *("\n", "\r", "\r\n", "data", "data:", "data: ", "event: ", "id: ", "retry: ", ":", " ", "7"),
    *("x", "é", "€", "🦆", "\0", "\ufeff", "\u2028", "\x85", "\x0b"),
]


@given(
    text=st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join),
    places=st.lists(st.integers(0, 200), max_size=8),
)
@example(text="data: x\r\r", places=[])
@example(text="data: x\r\n\r\n", places=[8, 10])
@example(text="data: x\r\r\n\n", places=[8, 9])
def test_any_stream_in_any_pieces_gives_what_the_standard_says(
    text: str, places: list[int]
) -> None:
    stream = text.encode()
    pieces = cut(stream, at=[place % (len(stream) + 1) for place in places])
    *lines, _unfinished = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    by_the_book = [(e.data, e.type, e.id) for e in sse.parse(lines)]

    assert by_the_book == [(e.data, e.event, e.last_event_id) for e in received_in_pieces(pieces)]


def test_an_event_is_dispatched_with_the_byte_that_completes_it() -> None:
    decoder = StreamDecoder(max_event_chars=100)

    assert list(decoder.feed(b"data: x\r")) == []
    assert list(decoder.feed(b"\r")) == [Received("x", "message", "")]
    assert list(decoder.feed(b"\n")) == []
    assert list(decoder.feed(b"\n")) == []


# --- decoding: what is refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "data", "replaced"),
    [
        ([b"data: \xff\n\n"], "\ufffd", 1),
        ([b"data: \xc3\x28\n\n"], "\ufffd(", 1),
        ([b"data: \xed\xa0\x80\n\n"], "\ufffd" * 3, 3),  # half of a surrogate pair
        ([b"data: \xc0\x80\n\n"], "\ufffd" * 2, 2),  # overlong
        ([b"data: \xe2", b"x\n\n"], "\ufffdx", 1),
        ([b"data: \xef\xbf\xbd\n\n"], "\ufffd", 0),  # encoded as it should be
        ([b"data: \xef", b"\xbf", b"\xbd\n", b"\n"], "\ufffd", 0),
        ([b"data: \xef\xbf", b"\xbd\xef\xbf\n\n"], "\ufffd" * 2, 1),
        ([b"data: \xef\xbf\xbd", b"\xff\n\n"], "\ufffd" * 2, 1),
    ],
)
def test_what_is_not_utf8_is_replaced_and_counted(
    pieces: list[bytes], data: str, replaced: int
) -> None:
    decoder = StreamDecoder(max_event_chars=100)

    assert [received.data for piece in pieces for received in decoder.feed(piece)] == [data]
    assert decoder.replaced == replaced


@pytest.mark.parametrize(
    ("stream", "last"),
    [
        (b"data: a", "a"),
        (b"data: a\n", "a"),
        (b"data: a\r", "a"),
        (b"data: a\r\n", "a"),
        (b"data: a\ndata: b", "a\nb"),
        (b"data: a\nda", "a"),
        (b"data: \xe2\x82", "\ufffd"),
        (b"data", ""),
        (b"data: a\n\n", None),
        (b"data: a\r\r", None),
        (b"", None),
        (b"data: a\n\n: a comment", None),
        (b"event: a\nid: 1", None),
        (b"dat", None),
    ],
)
def test_the_last_event_may_lack_its_blank_line(stream: bytes, last: str | None) -> None:
    for pieces in ([stream], [bytes([byte]) for byte in stream]):
        decoder = StreamDecoder(max_event_chars=100)
        for piece in pieces:
            list(decoder.feed(piece))
        found = decoder.finish()

        assert (None if found is None else found.data) == last


LIMIT = 20


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 13 + b"\n\n",
        b"data: a\ndata: bcd\n\n",
        (b"data: " + b"x" * 13 + b"\n\n") * 2,
        b"id: 1\n: a comment\ndata: abc\n\n",
        (b":" + b"x" * 19 + b"\n") * 2 + b"data: x\n\n",
        "data: 🦆🦆🦆🦆🦆🦆🦆🦆🦆🦆🦆🦆\n\n".encode(),  # characters, not bytes
        b"\n".join([b"data: 1234567890\n"] * 50) + b"\n",
    ],
)
def test_an_event_may_be_as_large_as_allowed(stream: bytes) -> None:
    whole = decode([stream])

    assert whole
    assert whole == received_in_pieces([stream], max_event_chars=LIMIT)
    assert whole == received_in_pieces([bytes([b]) for b in stream], max_event_chars=LIMIT)


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 15,
        b"data: " + b"x" * 15 + b"\n\n",
        b":" + b"x" * 20,
        b":" + b"x" * 20 + b"\n\n",
        b"data: 1234\ndata: 1234\n",
        b"data\n" * 5,
        b"id: 1\n" * 4,
        b"data: ok\n\n" + b"x" * 21,
    ],
)
def test_an_event_that_is_larger_is_refused_before_it_ends(stream: bytes) -> None:
    with pytest.raises(TooLarge, match="at most 20 characters"):
        received_in_pieces([stream], max_event_chars=LIMIT)
    with pytest.raises(TooLarge, match="at most 20 characters"):
        received_in_pieces([bytes([b]) for b in stream], max_event_chars=LIMIT)


def test_an_upstream_may_be_idle_for_ever() -> None:
    idle = HEARTBEAT * (LIMIT + 1)

    assert received_in_pieces([idle, idle, b"data: x\n\n"], max_event_chars=LIMIT) == [
        Received("x", "message", "")
    ]


def test_events_before_a_refused_one_stand() -> None:
    decoder = StreamDecoder(max_event_chars=LIMIT)
    events = decoder.feed(b"data: ok\n\n" + b"x" * 21)

    assert next(events) == Received("ok", "message", "")
    with pytest.raises(TooLarge):
        next(events)


def test_tiny_pieces_cost_no_more_than_large_ones() -> None:
    """A publisher that dribbles must not buy our time: keeping a piece copies nothing."""
    count = 300_000
    decoder = StreamDecoder(max_event_chars=2 * count)
    began = time.process_time()

    for _ in range(count):
        assert list(decoder.feed(b"x")) == []
    assert list(decoder.feed(b"\n")) == []

    # About half a second; with a copy or a search of what is kept it would be minutes.
    assert time.process_time() - began < 15


def test_what_is_kept_of_an_event_that_is_not_complete_is_counted() -> None:
    decoder = StreamDecoder(max_event_chars=100)

    assert [] == [*decoder.feed(b"id: 12\nevent: abc\ndata: defg\ndata: hi")]
    assert len("12" + "abc" + "defg\n" + "data: hi") == decoder.kept_bytes

    assert 1 == len([*decoder.feed(b"\n\n")])
    assert len("12") == decoder.kept_bytes
