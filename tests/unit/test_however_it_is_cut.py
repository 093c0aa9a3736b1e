"""The same bytes mean the same, however the network cut them.

Every decoder of streams gives the same events, and for what is wrong the same problem at the same
place, for one piece, for single bytes, and for any cut in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import example, given
from hypothesis import strategies as st

from broadcasterd.api.formats import EventStream, NdjsonEvents, RelayedEvents, encode
from broadcasterd.client.exchange import Credentials
from broadcasterd.client.following import Following
from broadcasterd.config import Sessions
from broadcasterd.errors import Problem
from broadcasterd.server.framing import KnownFields
from broadcasterd.server.requests import RequestReader

MOST = 60
LIMITS = Sessions(max_history_bytes=1000)

LINES = [
    b'{"data": 1}\n',
    b'{"data": "\xc3\xa9\xe2\x82\xac"}\r\n',
    b'\xef\xbb\xbf{"data": {"a": [1, 2]}, "event": "e"}\n',
    b"\n",
    b"  \r\n",
    rb'{"data": ["\ud83d"]}' + b"\n",
]
BAD_LINES = [
    b"no JSON\n",
    b'{"data": 1\n',
    b'{"data": "\xff"}\n',
    b'{"data": "\xe2\x82"}\n',
    b'{"data": "\0"}\n',
    b'{"data": 1, "x": 2}\n',
    b'{"data": 1, "event": "broadcaster.end"}\n',
    rb'{"data": "\ud83d"}' + b"\n",
    b'{"data": "%b"}\n' % (b"x" * MOST),
    b"x" * (MOST + 1),
    b'{"data": 1}\r{"data": 2}\n',
]
BLOCKS = [
    b"data: 1\n\n",
    b"event: e\r\ndata: \xc3\xa9\xe2\x82\xac\r\n\r\n",
    b"data: a\rdata: b\r\r",
    b": a comment\n",
    b"id: 1\nretry: 0\ndata\n\n",
    b"data: \xff\xe2\x82\xef\xbf\xbd\n\n",
    b"data: \0\n\n",
    b"\n\r\n\r",
    b"\xef\xbb\xbfdata: 1\n\n",
]
BAD_BLOCKS = [
    b"event: broadcaster.end\ndata: 1\n\n",
    b"event: \0\ndata: 1\n\n",
    b"data: %b\n\n" % (b"x" * MOST),
    b":%b\n" % (b"x" * MOST),
    b"data: 1\n" * 20,
]
ENDS = [b"", b"data: 1", b"data: 1\r", b"data: \xe2\x82", b'{"data": 1}', b'{"data": "\xe2', b"da"]

Cuts = Callable[[bytes], list[bytes]]


def bodies(good: Sequence[bytes], bad: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    parts = st.lists(st.sampled_from(good), max_size=6)
    fault = st.sampled_from([b"", *bad])
    return st.tuples(parts, fault, parts, st.sampled_from(ENDS)).map(
        lambda body: b"".join([*body[0], body[1], *body[2], body[3]])
    )


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[a:b] for a, b in pairwise(bounds)]


PLACES = st.lists(st.integers(0, 10_000), max_size=20)


def outcome(stream: EventStream, pieces: Iterable[bytes]) -> tuple[object, ...]:
    """Return what is accepted of a body, and the problem, or the remarks, that end it."""
    accepted: list[bytes] = []
    try:
        for piece in pieces:
            accepted.extend(encode(event, LIMITS).block for event in stream.feed(piece))
        accepted.extend(encode(event, LIMITS).block for event in stream.finish())
    except Problem as problem:
        said = {**problem.extra, **stream.where()}
        return accepted, problem.status, problem.detail, said
    return accepted, stream.remarks()


def check_cuts(read: Callable[[list[bytes]], object], body: bytes, places: list[int]) -> None:
    whole = read([body])

    assert read(cut(body, places)) == whole
    assert read([bytes([byte]) for byte in body]) == whole


@given(body=bodies(LINES, BAD_LINES), places=PLACES)
def test_lines(body: bytes, places: list[int]) -> None:
    check_cuts(lambda pieces: outcome(NdjsonEvents(MOST), pieces), body, places)


@pytest.mark.parametrize("takes_final", [True, False])
@given(body=bodies(BLOCKS, BAD_BLOCKS), places=PLACES)
@example(body=b"data: 1\r", places=[])
@example(body=b"data: 1\n\ndata: \xef\xbf\xbd\xff", places=[15])
def test_relayed_events(*, takes_final: bool, body: bytes, places: list[int]) -> None:
    def read(pieces: list[bytes]) -> object:
        return outcome(RelayedEvents(MOST, takes_final=takes_final), pieces)

    check_cuts(read, body, places)


# --- chunked bodies --------------------------------------------------------------------------

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = [b"5\r\nhello\r\n", b"0003;a=b\r\n1\n2\r\n", b'A;x="y"\r\n0\r\n\r\n0\r\n\r\n\r\n']
BAD_CHUNKS = [
    b"5\r\nhello!\r\n",
    b"5\nhello\r\n",
    b"5\r\nhello\n",
    b"g\r\n",
    b"-1\r\n",
    b"1;%b\r\nx\r\n" % (b"x" * 300),
    b"0\r\nbad trailer\r\n\r\n",
    b"0\r\na: b\n\r\n\r\n",
    b"0\r\na: %b\r\n\r\n" % (b"x" * 2000),
]
LAST_CHUNKS = [b"0\r\n\r\n", b"0\r\na: b\r\nc: d\r\n\r\n", b"", b"0\r\n"]


@given(
    chunks=st.lists(st.sampled_from(CHUNKS), max_size=5),
    fault=st.sampled_from([b"", *BAD_CHUNKS]),
    last=st.sampled_from(LAST_CHUNKS),
    places=PLACES,
)
@pytest.mark.parametrize("fault_first", [True, False])
def test_chunked_bodies(
    *, fault_first: bool, chunks: list[bytes], fault: bytes, last: bytes, places: list[int]
) -> None:
    def read(pieces: list[bytes]) -> object:
        reader = RequestReader(1000, KnownFields())
        reader.feed(HEAD)
        reader.next_head()
        body = b""
        try:
            for piece in pieces:
                reader.feed(piece)
                while more := reader.next_piece():
                    body += more
        except Problem as problem:
            return body, problem.status, problem.detail
        return body, reader.body_is_read

    middle = [fault, *chunks] if fault_first else [*chunks, fault]
    check_cuts(read, b"".join([*middle, last]), places)


# --- our own client --------------------------------------------------------------------------

OWN = [
    b"retry: 100\n: stream a\n",
    b"id: a-1\n\n",
    b"data: 1\nid: a-2\n\n",
    b"event: e\ndata: \xc3\xa9\xe2\x82\xac\ndata:\nid: a-3\n\n",
    b":\n",
    b'event: broadcaster.gap\ndata: {"asked":"x","oldest":null}\n\n',
    b"data: \xff\nid: a-4\n\n",
]


@given(
    parts=st.lists(st.sampled_from(OWN), max_size=8),
    end=st.sampled_from(
        [b"", b"data: 1\n", b'event: broadcaster.end\ndata: {"reconnect":false}\n\n']
    ),
    start=st.sampled_from([None, "now"]),
    places=PLACES,
)
def test_streams_as_our_client_reads_them(
    parts: list[bytes], end: bytes, start: str | None, places: list[int]
) -> None:
    def read(pieces: list[bytes]) -> object:
        headers = {"Content-Type": "text/event-stream; charset=utf-8"}
        response = httpx.Response(200, headers=headers, content=iter(pieces))
        following = Following("http://127.0.0.1/", Credentials(None), start=start)
        following.is_over(response)
        taken = [following.take(sse) for sse in EventSource(response).iter_sse()]
        return [each for each in taken if each], following._cursor, following._retry

    check_cuts(read, b"".join([*parts, end]), places)
