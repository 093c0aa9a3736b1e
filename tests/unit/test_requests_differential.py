"""Our reader of requests beside h11's: where the two see different messages, ours refuses.

h11 stands for whatever stands in front of the daemon. A message that both see ends at the same
byte and has the same fields; one that only h11 sees is refused, which is the safe side.
"""

from __future__ import annotations

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcasterd.errors import Problem
from broadcasterd.server.framing import KnownFields
from broadcasterd.server.requests import RequestReader

MAX_BYTES = 16 * 1024
EXAMPLES = 10 * settings().max_examples
"""Some 6 s of a whole run; a longer search found nothing else."""

Seen = list[tuple[str, dict[str, str], bytes]]
"""Each message: its method, its fields but for ``Host``, its body."""

TOKENS = [
    *(bytes([byte]) for byte in b'\r\n\0\t :;,"\\/%-+0159aAxXzZ_()\x0b\x7f\x80\xff'),
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"0\r\n\r\n",
    b"chunked",
    b"identity",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
]

LINES = [
    b"POST / HTTP/1.1",
    b"GET /a?b HTTP/1.0",
    b"ODD * HTTP/1.1",
    b"GET http://b/a HTTP/1.1",
    b"CONNECT /a HTTP/1.1",
]

FIELDS = [
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: 005",
    b"content-length:5 ",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length : 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:  Chunked\t",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding : chunked",
    b"X: a\r\n Content-Length: 7",
    b"X: a\nContent-Length: 7",
    b"X: a\rContent-Length: 7",
    b"X: \xff",
    b"Trailer: X",
    b"Connection: close, content-length",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
]

BODIES = [
    b"",
    b"hello",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"005;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b'2 ; a = "b;c"\r\nhi\r\n0\r\n\r\n',
    b"5\r\nhello0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    b"ffffffffffffffff\r\nhello",
]


def seen_by_us(data: bytes) -> tuple[Seen, bytes | None]:
    """Return what our reader sees, and what is left; ``None`` where it refuses to go on."""
    reader = RequestReader(MAX_BYTES, KnownFields())
    reader.feed(data)
    seen: Seen = []
    try:
        rest = reader.rest
        while (head := reader.next_head()) is not None:
            body = b""
            while piece := reader.next_piece():
                body += piece
            if piece is None:
                return seen, rest
            fields = {name: value for name, value in head.headers.items() if name != "host"}
            if "transfer-encoding" in fields:
                fields["transfer-encoding"] = "chunked"  # in h11's small letters
            seen.append((head.method, fields, body))
            rest = reader.rest
    except Problem:
        return seen, None
    return seen, rest


def seen_by_h11(data: bytes) -> tuple[Seen, bytes | None]:
    """Return the same of h11, which takes no empty line before a request: ours takes one."""
    seen: Seen = []
    while True:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BYTES)
        connection.receive_data(data.removeprefix(b"\r\n"))
        try:
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                return seen, data
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                return seen, data
        except h11.RemoteProtocolError:
            return seen, None
        fields: dict[str, str] = {}
        for raw_name, raw_value in request.headers:
            name, value = raw_name.decode(), raw_value.decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        fields.pop("host", None)
        seen.append((request.method.decode(), fields, body))
        data = connection.trailing_data[0]


def check(data: bytes) -> None:
    ours, our_rest = seen_by_us(data)
    theirs, their_rest = seen_by_h11(data)

    assert ours == theirs[: len(ours)]
    if our_rest is not None:
        assert len(ours) == len(theirs)
        assert our_rest.removeprefix(b"\r\n") == (their_rest or b"").removeprefix(b"\r\n")


def _request(line: bytes, fields: list[bytes], body: bytes) -> bytes:
    return line + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


requests = st.builds(
    _request,
    st.sampled_from(LINES),
    st.lists(st.sampled_from(FIELDS), max_size=3).map(lambda some: [b"Host: a", *some]),
    st.sampled_from(BODIES),
)
streams = st.lists(requests, min_size=1, max_size=3).map(b"".join)
changes = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.sampled_from(TOKENS)),
    max_size=4,
)


def _changed(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Put something in the place of a few bytes, here and there."""
    for where, removed, put in changes:
        start = int(where * len(data))
        data = data[:start] + put + data[start + removed :]
    return data


@settings(max_examples=EXAMPLES)
@given(data=streams)
def test_requests_of_odd_fields_and_bodies(data: bytes) -> None:
    check(data)


@settings(max_examples=EXAMPLES)
@given(data=st.builds(_changed, streams, changes))
def test_requests_with_something_changed(data: bytes) -> None:
    check(data)


@settings(max_examples=EXAMPLES)
@given(body=st.builds(_changed, st.sampled_from(BODIES), changes))
def test_chunks_with_something_changed(body: bytes) -> None:
    check(_request(LINES[0], [b"Host: a", b"Transfer-Encoding: chunked"], body) + b"GET")


def test_both_see_what_is_good() -> None:
    whole = _request(LINES[0], [b"Host: a", b"Content-Length: 5"], b"hello")
    chunked = _request(LINES[0], [b"Host: a", b"Transfer-Encoding: chunked"], BODIES[4])

    for see in (seen_by_us, seen_by_h11):
        seen, rest = see(whole + chunked + b"GET")
        assert [b"hello", b"hello"] == [body for _, _, body in seen]
        assert b"GET" == rest
