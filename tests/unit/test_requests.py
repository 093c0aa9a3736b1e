"""The reader of requests: what it takes, what it refuses, and where a message ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.errors import Problem
from broadcasterd.server.framing import (
    MAX_FIELDS,
    MAX_KNOWN,
    MAX_REMEMBERED_BYTES,
    KnownFields,
)
from broadcasterd.server.requests import (
    MAX_CHUNK_LINE_BYTES,
    PREFACE,
    RequestHead,
    RequestReader,
)

MAX_HEAD_BYTES = 2048
CHUNKED = "Transfer-Encoding: chunked\r\n"

Message = tuple[RequestHead, bytes]


@dataclass(frozen=True)
class Read:
    """What a reader made of bytes: whole requests, why it stopped, and what it would go on with."""

    requests: list[Message]
    status: int | None
    rest: bytes

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in self.requests]


def read(pieces: Iterable[bytes], *, max_head_bytes: int = MAX_HEAD_BYTES) -> Read:
    """Feed pieces as they come; take all that can be taken after each."""
    reader = RequestReader(max_head_bytes, KnownFields())
    requests: list[Message] = []
    head: RequestHead | None = None
    body = b""
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                if head is None:
                    head = reader.next_head()
                    if head is None:
                        break
                    body = b""
                while found := reader.next_piece():
                    body += found
                if found is None:
                    break
                assert reader.body_is_read
                requests.append((head, body))
                head = None
    except Problem as problem:
        return Read(requests, problem.status, b"")
    return Read(requests, None, reader.rest if head is None else b"in a body")


def head_of(data: bytes, **settings: int) -> RequestHead:
    """Return the head of the one request that there is."""
    found = read([data], **settings)
    [(head, _)] = found.requests
    return head


def refused(data: bytes, **settings: int) -> int | None:
    """Return the status of a refusal, having seen that nothing was taken."""
    found = read([data], **settings)
    assert not found.requests
    return found.status


def get(fields: str = "Host: a\r\n", *, target: str = "/", version: str = "1.1") -> bytes:
    return f"GET {target} HTTP/{version}\r\n{fields}\r\n".encode("latin-1")


def post(fields: str, body: bytes = b"", *, version: str = "1.1") -> bytes:
    return f"POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode("latin-1") + body


# --- heads -----------------------------------------------------------------------------------


def test_a_head_has_method_target_version_and_fields() -> None:
    head = head_of(get("Host: a:80\r\nX-Odd:\t b \r\nEmpty:\r\n", target="/path?query"))

    assert ("GET", "/path?query", "1.1", 0) == (
        head.method,
        head.target,
        head.http_version,
        head.length,
    )
    assert {"host": "a:80", "x-odd": "b", "empty": ""} == head.headers


def test_the_values_of_a_repeated_field_are_joined() -> None:
    head = head_of(get("Host: a\r\nAccept: x\r\nCookie: a=1\r\nACCEPT: y\r\nCookie: b=2\r\n"))

    assert "x, y" == head.headers["accept"]
    assert "a=1; b=2" == head.headers["cookie"]


def test_a_value_may_have_bytes_that_are_no_ascii() -> None:
    assert (
        "\xff\xfe"
        == head_of(get("Host: a\r\nLast-Event-ID: \xff\xfe\r\n")).headers["last-event-id"]
    )


@pytest.mark.parametrize("method", ["DELETE", "PRI", "M-SEARCH", "ODD", "!#$%&'*+-.^_`|~", "get"])
def test_every_token_is_a_method(method: str) -> None:
    assert method == head_of(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode()).method


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("/a?b", "/a?b", "a"),
        ("//a", "//a", "a"),
        ("*", "*", "a"),
        ("http://b:1/a?b", "/a?b", "b:1"),
        ("HTTPS://b", "/", "b"),
        ("http://b?c", "/?c", "b"),
        ("http://[::1]/", "/", "[::1]"),
    ],
)
def test_a_target_is_a_path_a_url_or_an_asterisk(target: str, path: str, host: str) -> None:
    head = head_of(get(target=target))

    assert (path, host) == (head.target, head.headers["host"])


@pytest.mark.parametrize(
    "target", ["", "a", "a:80", "ftp://b/", "http://[::1/", "http://u@b/", "/\0", "/\xff", "/ a"]
)
def test_any_other_target_is_refused(target: str) -> None:
    assert 400 == refused(get(target=target))


@pytest.mark.parametrize("host", ["", "a", "a.b-c:8000", "[::1]:80", "127.0.0.1", "a:"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert host == head_of(get(f"Host: {host}\r\n")).headers["host"]


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: ..\r\n",
        "Host: a/b\r\n",
        "Host: a:b\r\n",
    ],
)
def test_without_one_good_host_a_request_is_refused(fields: str) -> None:
    assert 400 == refused(get(fields))


def test_http_1_0_needs_no_host() -> None:
    assert "1.0" == head_of(get("", version="1.0")).http_version


@pytest.mark.parametrize(
    ("version", "status"),
    [("0.9", 505), ("2.0", 505), ("3.0", 505), ("1.10", 400), ("1", 400), ("x.y", 400), ("", 400)],
)
def test_another_version_is_refused(version: str, status: int) -> None:
    assert status == refused(get(version=version))


def test_a_later_minor_version_is_read_as_the_one_that_is_known() -> None:
    assert "1.1" == head_of(get(version="1.3")).http_version


@pytest.mark.parametrize(
    ("fields", "version", "keeps_alive"),
    [
        ("", "1.1", True),
        ("Connection: keep-alive\r\n", "1.1", True),
        ("Connection: close\r\n", "1.1", False),
        ("Connection: x, CLOSE\r\n", "1.1", False),
        ("Connection: x\r\nConnection: close\r\n", "1.1", False),
        ("Connection: disclose\r\n", "1.1", True),
        ("Connection: keep-alive\r\n", "1.0", False),
    ],
)
def test_whether_a_connection_goes_on(fields: str, version: str, *, keeps_alive: bool) -> None:
    assert keeps_alive is head_of(post(fields, version=version)).keeps_alive


def test_an_expectation_is_told() -> None:
    assert head_of(post("Expect: 100-Continue\r\n")).expects_continue
    assert not head_of(post("Expect: 42-what\r\n")).expects_continue
    assert not head_of(post("Expect: 100-continue\r\n", version="1.0")).expects_continue


@pytest.mark.parametrize("name", ["h2c", "websocket"])
def test_an_upgrade_is_ignored(name: str) -> None:
    fields = f"Host: a\r\nConnection: Upgrade\r\nUpgrade: {name}\r\nAfter: b\r\n"
    found = read([get(fields) + get()])

    assert 2 == len(found.requests)
    assert "b" == found.requests[0][0].headers["after"]


def test_an_empty_line_before_a_request_is_skipped() -> None:
    assert 3 == len(read([b"\r\n" + get() + get() + b"\r\n" + get()]).requests)
    assert 400 == refused(b"\r\n\r\n" + get())
    assert Read([], None, b"") == read([b"\r\n"])


def test_the_preface_of_http2_is_recognised() -> None:
    reader = RequestReader(MAX_HEAD_BYTES, KnownFields())
    reader.feed(PREFACE + b"SM\r\n\r\nmore")
    head = reader.next_head()

    assert head is not None
    assert "2.0" == head.http_version
    assert b"SM\r\n\r\nmore" == reader.rest
    assert 505 == refused(PREFACE.replace(b"*", b"/"))


@pytest.mark.parametrize(
    "line",
    [
        "A : b",
        " A: b",
        ": b",
        "A",
        "A: b\r\n c",
        "A: b\r\n\tc",
        "A: \0",
        "A: \x0b",
        "A: \x7f",
        "A: b\rc",
        "A: b\nC: d",
        "A\0: b",
        "\xc4: b",
        "A(: b",
    ],
)
def test_a_line_that_is_no_field_is_refused(line: str) -> None:
    assert 400 == refused(get(f"Host: a\r\n{line}\r\n"))
    assert 400 == refused(get(f"{line}\r\nHost: a\r\n"))
    assert 400 == refused(post(CHUNKED, f"0\r\n{line}\r\n\r\n".encode("latin-1")))


@pytest.mark.parametrize(
    "beginning",
    [b"\x16\x03\x01", bytes(10), b"\xff", b" GET", b"\nGET", b"GET / HTTP/1.1\n", b"\rG"],
)
def test_what_cannot_become_a_request_is_refused_at_once(beginning: bytes) -> None:
    assert 400 == refused(beginning)


def test_lines_end_with_crlf_alone() -> None:
    assert 400 == refused(get().replace(b"\r\n", b"\n"))


# --- limits ----------------------------------------------------------------------------------


def head_with(size: int) -> bytes:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("step", [1, 100, 10_000])
def test_a_head_may_have_so_many_bytes_and_not_one_more(step: int) -> None:
    for size, status in [(1000, None), (1001, 431), (5000, 431)]:
        data = head_with(size) + get()
        pieces = [data[start : start + step] for start in range(0, len(data), step)]
        found = read(pieces, max_head_bytes=1000)
        assert (status, 0 if status else 2) == (found.status, len(found.requests))


def test_a_head_may_have_so_many_fields() -> None:
    def head(count: int) -> bytes:
        return get("Host: a\r\n" + "A:\r\n" * (count - 1))

    assert MAX_FIELDS == head_of(head(MAX_FIELDS)).headers["a"].count(",") + 2
    assert 431 == refused(head(MAX_FIELDS + 1))


def test_trailers_are_bounded_and_mean_nothing() -> None:
    found = read([post(CHUNKED, b"0\r\nX: y\r\nContent-Length: 9\r\n\r\n") + get()])
    assert [b"", b""] == found.bodies

    long = b"0\r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n"
    assert 431 == refused(post(CHUNKED, long))
    assert 431 == refused(post(CHUNKED, b"0\r\nX: " + b"y" * MAX_HEAD_BYTES))


def test_extensions_of_chunks_are_bounded() -> None:
    line = b"1;" + b"x" * (MAX_CHUNK_LINE_BYTES - 4) + b"\r\n"
    assert [b"a"] == read([post(CHUNKED, line + b"a\r\n0\r\n\r\n")]).bodies
    assert 400 == refused(post(CHUNKED, b"1;x" + line[2:] + b"a\r\n0\r\n\r\n"))
    assert 400 == refused(post(CHUNKED, b"1;" + b"x" * MAX_CHUNK_LINE_BYTES))


# --- bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sent", "body"),
    [
        ("", b"", b""),
        ("Content-Length: 0\r\n", b"", b""),
        ("Content-Length: 0002\r\n", b"hi", b"hi"),
        (CHUNKED, b"0\r\n\r\n", b""),
        ("Transfer-Encoding: CHUNKED\r\n", b"2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (CHUNKED, b"0a\r\n0123456789\r\n1\r\n!\r\n00\r\n\r\n", b"0123456789!"),
        (CHUNKED, b'2;a\r\nhi\r\n1; a="b c";d = e\r\n!\r\n0;x\r\n\r\n', b"hi!"),
        (CHUNKED, b"2\r\nhi\r\n0\r\nX: y\r\n\r\n", b"hi"),
    ],
)
def test_a_body_ends_where_its_length_or_its_chunks_say(
    fields: str, sent: bytes, body: bytes
) -> None:
    found = read([post(fields, sent) + get() + b"GET"])

    assert [body, b""] == found.bodies
    assert b"GET" == found.rest


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1, 1\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x1\r\n", 400),
        ("Content-Length: 1_0\r\n", 400),
        ("Content-Length: \u00b2\r\n", 400),
        ("Content-Length:\r\n", 400),
        (f"Content-Length: {'9' * 19}\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: gzip\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 501),
    ],
)
def test_a_body_whose_end_is_not_clear_is_refused(fields: str, status: int) -> None:
    assert status == refused(post(fields))


def test_chunks_in_http_1_0_are_refused() -> None:
    assert 400 == refused(post(CHUNKED, b"0\r\n\r\n", version="1.0"))


@pytest.mark.parametrize(
    "chunk",
    [
        b"+5\r\nhello",
        b"-5\r\nhello",
        b"0x5\r\nhello",
        b" 5\r\nhello",
        b"5 \r\nhello",
        b"5 ;a\r\nhello",
        b"00000000000000005\r\nhello",
        b"\r\nhello",
        b"5\nhello",
        b"5;\nhello",
        b"5;\r\nhello",
        b"5\rhello",
        b'5;a="\r\nhello',
        b"5;a=\x0b\r\nhello",
        b"5\r\nhello!",
        b"5\r\nhell",
        b"5\r\nhello\n\r",
        b"5\r\nhelloXX",
        b"g\r\nhello",
    ],
)
def test_a_chunk_that_is_none_is_refused(chunk: bytes) -> None:
    assert 400 == refused(post(CHUNKED, chunk + b"\r\n0\r\n\r\n"))


# --- however it is cut -----------------------------------------------------------------------

WHOLE = (
    get("Host: a\r\nCookie: b\r\nCookie: c\r\n")
    + post("Content-Length: 5\r\n", b"hello")
    + b"\r\n"
    + post(CHUNKED, b'2;a="b"\r\nhi\r\n5\r\nthere\r\n0\r\nX: y\r\n\r\n')
    + post(CHUNKED, b"0\r\n\r\n")
    + b"GET / HT"
)


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=40).map(sorted))
def test_bytes_in_any_cuts_are_the_same_requests(cuts: list[int]) -> None:
    pieces = [WHOLE[start:end] for start, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True)]

    assert read([WHOLE]) == read(pieces)
    assert [b"", b"hello", b"hithere", b""] == read(pieces).bodies


def test_bytes_one_by_one_are_the_same_requests() -> None:
    assert read([WHOLE]) == read(bytes([byte]) for byte in WHOLE)


# Heads of one connection: most are the same, but for the target and the length of the body.
LINES = [
    "POST /a HTTP/1.1",
    "POST /b?c HTTP/1.1",
    "POST http://b/a HTTP/1.1",
    "GET /a HTTP/1.1",
    "POST /a HTTP/1.0",
]
LENGTHS = [
    *("Content-Length: 0", "Content-Length: 1", "content-length: 2", "Content-Length: 12"),
    *("Content-Length: 01", "Content-Length:  1", "Content-Length: 1 ", "Content-Length: 1x"),
    *("Content-Length: ", "Content-Length: 1, 1", "Content-Length: 99999999999999999999"),
    *(
        "Content-Length: 1\r\nContent-Length: 2",
        "X-Content-Length: 1",
        "Content-Length: -1",
        CHUNKED[:-2],
    ),
]
OTHERS = ["A: 1", "Content-Length: 1", "Connection: close", "Expect: 100-continue"]


@st.composite
def connections(draw: st.DrawFn) -> list[bytes]:
    """Return heads, the same but for the line and the length; now and then another field."""
    line, length, other = st.sampled_from(LINES), st.sampled_from(LENGTHS), st.sampled_from(OTHERS)
    after = draw(other)
    heads = [f"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{after}\r\n\r\n"]
    for _ in range(draw(st.integers(1, 4))):
        last = after if draw(st.integers(0, 3)) else draw(other)
        heads.append(f"{draw(line)}\r\nHost: a\r\n{draw(length)}\r\n{last}\r\n\r\n")
    return [head.encode() for head in heads]


@given(heads=connections())
def test_what_was_read_before_changes_nothing(heads: list[bytes]) -> None:
    known = KnownFields()
    reader = RequestReader(MAX_HEAD_BYTES, known)
    for data in heads:
        alone = read_head(RequestReader(MAX_HEAD_BYTES, KnownFields()), data)
        assert alone == read_head(reader, data)
        assert alone == read_head(RequestReader(MAX_HEAD_BYTES, known), data)
        if isinstance(alone, int):
            break  # the connection is over
        if alone.length is None:
            reader.feed(b"0\r\n\r\n")
            while reader.next_piece():
                pass
        elif alone.length > MAX_HEAD_BYTES:
            break
        else:
            reader.feed(b"b" * alone.length)
            assert reader.whole_body() == b"b" * alone.length


@given(
    heads=st.lists(
        st.tuples(
            st.sampled_from([*LINES, "GET http://b/c HTTP/1.1"]),
            st.lists(st.sampled_from([*OTHERS, "Host: a", "Host: b", "a: 1", "X: y ", "bad"])),
        ),
        max_size=8,
    )
)
def test_what_was_read_on_other_connections_changes_nothing(
    heads: list[tuple[str, list[str]]],
) -> None:
    known = KnownFields()
    for line, fields in [*heads, *heads]:
        data = "\r\n".join([line, *fields, "", ""]).encode()
        alone = read_head(RequestReader(MAX_HEAD_BYTES, KnownFields()), data)

        assert alone == read_head(RequestReader(MAX_HEAD_BYTES, known), data)


@pytest.mark.parametrize(
    ("field", "count"),
    [
        ("User-Agent: a", 1),
        ("Last-Event-ID: 7f3c9a1b-42", 1),
        ("Authorization: Bearer a", 0),
        ("AUTHORIZATION: Bearer a", 0),
        ("cookie: a=b", 0),
        ("Proxy-Authorization: Basic a", 0),
        (f"A: {'b' * MAX_REMEMBERED_BYTES}", 0),
    ],
)
def test_no_secret_and_nothing_large_is_known(field: str, count: int) -> None:
    known = KnownFields()
    head = read_head(RequestReader(2 * MAX_REMEMBERED_BYTES, known), get(f"Host: a\r\n{field}\r\n"))

    assert isinstance(head, RequestHead)
    assert count == len(known)


def test_fields_that_are_refused_are_not_known() -> None:
    known = KnownFields()

    assert 400 == read_head(RequestReader(MAX_HEAD_BYTES, known), get("Host : a\r\n"))
    assert 0 == len(known)


def test_of_known_fields_the_last_stay() -> None:
    known = KnownFields()
    for number in range(3 * MAX_KNOWN):
        read_head(RequestReader(MAX_HEAD_BYTES, known), get(f"Host: a{number}\r\n"))

        assert min(number + 1, MAX_KNOWN) == len(known)


def read_head(reader: RequestReader, data: bytes) -> RequestHead | int:
    """Return a head, or the status of its refusal."""
    reader.feed(data)
    try:
        head = reader.next_head()
    except Problem as problem:
        return problem.status
    assert head is not None
    return head
