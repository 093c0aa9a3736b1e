"""The event-stream format, both ways, against the standard and against other parsers."""

from __future__ import annotations

import json

import httpx
import httpx_sse
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcasterd.core.decoder import Received, decode, read_frame
from broadcasterd.core.event import MAX_EVENT_NAME_CHARS, OWN_PREFIX, Event
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.wire import (
    HEARTBEAT,
    LAST_CHUNK,
    chunk,
    encode_block,
    encode_end,
    encode_frame,
    encode_gap,
    encode_opening,
    encode_priming,
    unchunk,
)
from tests.support import sse

# Line breaks of the standard; those that str.splitlines and some clients take for one; what
# the format gives a meaning; what UTF-8 writes in two, three and four bytes.
AWKWARD = "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0\ufeff: xé€🦆"

texts = st.text(st.sampled_from(AWKWARD) | st.characters(codec="utf-8"))
names = st.text(
    st.sampled_from(sorted(set(AWKWARD) - set("\r\n\0")))
    | st.characters(exclude_characters="\r\n\0", codec="utf-8"),
    max_size=MAX_EVENT_NAME_CHARS,
).filter(lambda name: not name.startswith(OWN_PREFIX))  # Hypothesis tries what is in the source
events = st.builds(
    Event,
    data=texts,
    event=st.none() | st.just("message") | names,
    retry=st.none() | st.integers(0, 86_400_000),
)


def with_lf(text: str) -> str:
    """Return what arrives of a text: the format turns every line break into LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def as_received(event: Event, event_id: str) -> Received:
    """Return what a client has to see of an event."""
    return Received(with_lf(event.data), event.event or "message", event_id, event.retry)


# --- encoding --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "block"),
    [
        (Event("hello"), b"data: hello\n\n"),
        (Event(""), b"data: \n\n"),
        (Event("a\nb"), b"data: a\ndata: b\n\n"),
        (Event("a\r\nb\rc\nd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (Event("\n"), b"data: \ndata: \n\n"),
        (Event("\r\n\r"), b"data: \ndata: \ndata: \n\n"),
        (Event(" two spaces:"), b"data:  two spaces:\n\n"),
        (Event("\ufeffé🦆"), "data: \ufeffé🦆\n\n".encode()),
        (Event("nul \0"), b"data: nul \0\n\n"),
        (Event("\x0b\x0c\x1c\x85\u2028"), "data: \x0b\x0c\x1c\x85\u2028\n\n".encode()),
        (Event("x", "greeting"), b"event: greeting\ndata: x\n\n"),
        (Event("x", "message"), b"data: x\n\n"),
        (Event("x", ""), b"data: x\n\n"),
        (Event("x", retry=0), b"retry: 0\ndata: x\n\n"),
        (Event("x", "a", retry=5000), b"event: a\nretry: 5000\ndata: x\n\n"),
        (Event("x", ttl=1.0, idempotency_key="k"), b"data: x\n\n"),
    ],
)
def test_a_block_is_written_like_this(event: Event, block: bytes) -> None:
    assert encode_block(event) == block


def test_half_of_a_surrogate_pair_cannot_be_encoded() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_block(Event("\ud83e"))


def test_a_frame_is_the_id_and_the_block_in_one_chunk() -> None:
    frame = encode_frame("7f3c-1", b"data: x\n\n")

    assert frame == b"14\r\ndata: x\nid: 7f3c-1\n\n\r\n"


@given(data=st.binary(min_size=1))
@example(data=b"\n")
@example(data=b"\r\n" * 10)
def test_unchunk_undoes_chunk(data: bytes) -> None:
    chunked = chunk(data)
    size, _, rest = chunked.partition(b"\r\n")

    assert len(data) == int(size, 16)
    assert rest == data + b"\r\n"
    assert unchunk(chunked) == data


def test_the_last_chunk_is_empty_and_without_trailers() -> None:
    assert LAST_CHUNK == b"0\r\n\r\n"


def test_the_opening_names_the_stream_and_has_no_blank_line() -> None:
    opening = encode_opening("7f3c", retry_ms=3000)

    assert opening == b"retry: 3000\n: stream 7f3c\n"


def test_after_the_opening_the_first_event_is_whole() -> None:
    stream = encode_opening("7f3c", retry_ms=3000) + HEARTBEAT + b"id: a-1\ndata: x\n\n"

    assert list(sse.parse(stream.decode().split("\n"))) == [sse.Event("a-1", "x")]
    assert decode([stream]) == [Received("x", "message", "a-1", 3000)]


def test_a_heartbeat_has_no_blank_line() -> None:
    assert HEARTBEAT == b":\n"


def test_priming_fires_nothing_and_is_remembered() -> None:
    primed = encode_priming("a-7")

    assert primed == b"id: a-7\n\n"
    assert decode([primed]) == []
    assert decode([primed, b"data: x\n\n"]) == [Received("x", "message", "a-7")]


@pytest.mark.parametrize(
    ("asked", "oldest"), [("a-1", "b-9"), ("a-1", None), ('"\r\nid: x\0é', "b-9")]
)
def test_a_gap_says_what_was_asked_for_and_what_is_left(asked: str, oldest: str | None) -> None:
    stream = b"id: before\n\n" + encode_gap(asked=asked, oldest=oldest)
    [gap] = decode([stream])

    assert json.loads(gap.data) == {"asked": asked, "oldest": oldest}
    assert gap.event == "broadcaster.gap"
    assert gap.last_event_id == "before"  # what the daemon says moves no cursor
    assert stream.isascii()


@pytest.mark.parametrize("reason", EndReason)
def test_an_end_says_why_and_whether_to_come_back(reason: EndReason) -> None:
    [end] = decode([encode_end(reason)])

    assert json.loads(end.data) == {"reason": str(reason), "reconnect": reason.reconnect}
    assert (end.event, end.last_event_id, end.retry) == ("broadcaster.end", "", None)


def test_an_end_can_say_when_to_come_back() -> None:
    end = encode_end(EndReason.DRAINING, retry_ms=2500)

    expected = (
        b'retry: 2500\nevent: broadcaster.end\ndata: {"reason":"draining","reconnect":true}\n\n'
    )
    assert end == expected


# --- both ways -------------------------------------------------------------------------------


@given(event=events)
@example(event=Event("data: a\nid: b\r\n\rc", "data: x", retry=5))
def test_a_frame_is_read_as_a_client_reads_it(event: Event) -> None:
    frame = encode_frame("7f3c9a1b-42", encode_block(event))

    assert decode([unchunk(frame)]) == [read_frame(frame)]


@given(sent=st.lists(events, max_size=5))
@example(sent=[Event(AWKWARD, "greeting", retry=1), Event(""), Event("\r", ""), Event("\n\r")])
def test_what_is_encoded_is_what_our_decoder_reads(sent: list[Event]) -> None:
    frames = [encode_frame(f"a-{n}", encode_block(event)) for n, event in enumerate(sent)]

    expected = [as_received(event, f"a-{n}") for n, event in enumerate(sent)]
    assert decode(unchunk(frame) for frame in frames) == expected


@given(sent=st.lists(events, min_size=1, max_size=5))
@example(sent=[Event(AWKWARD, "greeting", retry=1), Event(""), Event("\r", ""), Event("\n\r")])
def test_what_is_encoded_is_what_an_independent_client_reads(sent: list[Event]) -> None:
    r"""Through httpx-sse's own reader of lines, which is the right one.

    httpx's ``Response.iter_lines`` (as ``str.splitlines``) also breaks lines at \\v, \\f, \\x1c,
    \\x85, U+2028 and the like. By the standard only CR, LF and CRLF end a line, and text may
    hold the others: a client that breaks there loses data, and no encoding could help it.
    """
    stream = b"".join(
        unchunk(encode_frame(f"a-{n}", encode_block(event))) for n, event in enumerate(sent)
    )
    headers = {"content-type": "text/event-stream"}
    source = httpx_sse.EventSource(httpx.Response(200, headers=headers, content=stream))

    read = [Received(e.data, e.event, e.id, e.retry) for e in source.iter_sse()]

    assert read == [as_received(event, f"a-{n}") for n, event in enumerate(sent)]
