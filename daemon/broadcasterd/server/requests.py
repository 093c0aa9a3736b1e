"""Reading HTTP/1.1 requests (RFC 9112): bytes go in, heads and pieces of bodies come out.

No I/O, and no guess: where somebody else could see another end of a message, or another message,
there is none, and the connection is over (request smuggling). llhttp takes the fields of a head
apart. Where a head and where a body end is found here, so that it is known to the byte.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import httptools
import msgspec

from broadcasterd.errors import Problem
from broadcasterd.server.headers import is_host

PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""The beginning of HTTP/2 without TLS, as far as it looks like a head (RFC 9113 §3.4)."""

MAX_FIELDS = 256
"""Each costs more than its bytes; a browser sends some 20."""

MAX_CHUNK_LINE_BYTES = 256
"""A chunk's size has up to 16 digits. Its extensions mean nothing to anybody."""

MAX_LENGTH_DIGITS = 18
"""A body of more bytes than that nobody sends."""

_TCHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rf"({_TCHARS}) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n".encode())
_BEGINNING = re.compile(rf"\r?\Z|{_TCHARS}".encode())
_BARE_LF = re.compile(rb"(?<!\r)\n")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_LENGTH = re.compile(rf"[0-9]{{1,{MAX_LENGTH_DIGITS}}}")
_LENGTH_FIELD = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]+)\r\n")

_EXTENSION = rf';[ \t]*{_TCHARS}([ \t]*=[ \t]*({_TCHARS}|"[\t -!#-\[\]-~]*"))?'
_CHUNK_LINE = rf"([0-9A-Fa-f]{{1,16}})({_EXTENSION})*\r\n"
_FIRST_CHUNK = re.compile(_CHUNK_LINE.encode())
_NEXT_CHUNK = re.compile(rf"\r\n{_CHUNK_LINE}".encode())

_DETAILS = {
    HTTPStatus.BAD_REQUEST: "this is not HTTP/1.1",
    HTTPStatus.REQUEST_TIMEOUT: "the head of the request took too long (limits.head_timeout)",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        "the head of the request has too many bytes (limits.max_head_bytes)"
    ),
}


MAX_REMEMBERED_BYTES = 2048
"""Of fields that are remembered: a browser's, or a program's with its token, are fewer."""


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """What stands before a body.

    Attributes:
        target: path and query as they were sent, or ``*``. Of a URL its host went to ``headers``.
        http_version: ``1.0``, ``1.1``; or ``2.0``, where it was HTTP/2's preface.
        headers: by name in lower case; the values of one that was repeated are joined.
        length: the body's bytes; ``None`` where it comes in chunks.
        keeps_alive: whether the client will go on with another request.
        expects_continue: whether it waits for a word before it sends the body.

    """

    method: str
    target: str
    http_version: str
    headers: dict[str, str]
    length: int | None = 0
    keeps_alive: bool = False
    expects_continue: bool = False


MAX_CHUNKS_AT_ONCE = 1000
"""Chunks that are joined into one piece of a body: with a byte each, they take 4 ms."""


class RequestReader:
    """The requests of one connection, one after the other.

    Args:
        max_head_bytes: what a head may have, and the trailers of a body.

    """

    __slots__ = ("_before", "_buffer", "_chunks", "_left", "_max_head_bytes", "_skipped_a_line")

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._buffer = b""
        self._skipped_a_line = False
        self._left = 0  # bytes of the body that are still to come
        self._chunks: _Chunks | None = None
        self._before: _Remembered | None = None  # the fields of the request before

    @property
    def rest(self) -> bytes:
        """Bytes that were fed and not asked for yet: the start of a head, or more."""
        return self._buffer

    @property
    def body_is_read(self) -> bool:
        """Whether nothing of the request is left."""
        return not self._left and (self._chunks is None or self._chunks.complete)

    def feed(self, data: bytes) -> None:
        """Take what the connection brought."""
        self._buffer = self._buffer + data if self._buffer else data

    def next_head(self) -> RequestHead | None:
        """Return the head of the next request; ``None`` until all of it is there.

        Raises:
            Problem: it is none. The connection is to end.

        """
        if self._buffer[:2] == b"\r\n" and not self._skipped_a_line:
            self._skipped_a_line = True
            self._buffer = self._buffer[2:]  # some send one behind a body (RFC 9112 §2.2)
        if not self._buffer:
            return None
        end = self._buffer.find(b"\r\n\r\n", 0, self._max_head_bytes)
        if end < 0:
            self._check_beginning()
            return None
        head = self._parse_head(self._buffer[: end + 4])
        self._buffer = self._buffer[end + 4 :]
        self._skipped_a_line = False
        self._left = head.length or 0
        self._chunks = _Chunks(self._max_head_bytes) if head.length is None else None
        return head

    def fields_so_far(self) -> dict[str, str]:
        """Return the fields of a head that was refused, as far as all that came are well-formed."""
        head, end, _ = self._buffer[: self._max_head_bytes].partition(b"\r\n\r\n")
        _, *lines = head.split(b"\r\n")
        try:
            return _parse_fields(b"\r\n".join([*(lines if end else lines[:-1]), b"", b""]))
        except Problem:
            return {}

    def whole_body(self) -> bytes | None:
        """Return all that is left of the body, if it is here and not in chunks."""
        left = self._left
        if self._chunks is not None or left > len(self._buffer):
            return None
        body, self._buffer = self._buffer[:left], self._buffer[left:]
        self._left = 0
        return body

    def next_piece(self) -> bytes | None:
        """Return more of the body, nothing at its end; ``None`` until there is more.

        Raises:
            Problem: it is not in chunks as it was said to be. The connection is to end.

        """
        if self._chunks is not None:
            piece, self._buffer = self._chunks.decode(self._buffer)
            return piece or (b"" if self._chunks.complete else None)
        if not self._left:
            return b""
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        return piece or None

    def _parse_head(self, head: bytes) -> RequestHead:
        line = _REQUEST_LINE.match(head)
        if line is None:
            raise refusal(HTTPStatus.BAD_REQUEST)
        if head == PREFACE:
            return RequestHead("PRI", "*", "2.0", {})
        method, target, major, minor = line.groups()
        if major != b"1":
            raise refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        version = "1.0" if minor == b"0" else "1.1"
        block = head[line.end() - 2 :]  # with the line break before the first of them
        framing = None if self._before is None else self._before.parse(block, version)
        if framing is None:
            framing = _parse_framing(block, version)
            self._before = _Remembered.of(block, version, framing) if framing.length else None
        where, headers = _split_target(target.decode(), framing.headers)
        return RequestHead(
            method.decode(),
            where,
            version,
            headers,
            framing.length,
            framing.keeps_alive,
            framing.expects_continue,
        )

    def _check_beginning(self) -> None:
        """Refuse what no more bytes can make a head of."""
        if len(self._buffer) >= self._max_head_bytes:
            raise refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if not _BEGINNING.match(self._buffer) or _BARE_LF.search(self._buffer):
            raise refusal(HTTPStatus.BAD_REQUEST)


class _Chunks:
    """Takes a body apart that comes in chunks (RFC 9112 §7.1)."""

    __slots__ = ("_left", "_line", "_max_trailer_bytes", "_was_last", "complete")

    def __init__(self, max_trailer_bytes: int) -> None:
        self._max_trailer_bytes = max_trailer_bytes
        self._line = _FIRST_CHUNK
        self._left = 0
        self._was_last = False
        self.complete = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what the chunks in ``data`` hold, and the rest: to come again, with more of it."""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.complete and len(pieces) < MAX_CHUNKS_AT_ONCE:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                taken = len(piece)
            else:
                take = self._skip_trailers if self._was_last else self._begin
                try:
                    taken = take(data, at)
                except Problem:
                    if not pieces:
                        raise
                    break  # what comes before is of the body, however all this was cut
            if not taken:
                break
            at += taken
        return b"".join(pieces), data[at:]

    def _begin(self, data: bytes, at: int) -> int:
        """Read the line that a chunk begins with; return its bytes, 0 where it is not whole."""
        start = at
        if self._line is _NEXT_CHUNK:  # what ends the chunk before it is taken with it
            start += 2
            if not b"\r\n".startswith(data[at:start]):
                raise refusal(HTTPStatus.BAD_REQUEST)
        end = data.find(b"\n", start, start + MAX_CHUNK_LINE_BYTES) + 1
        if not end and len(data) - start < MAX_CHUNK_LINE_BYTES:
            return 0
        line = self._line.fullmatch(data, at, end) if end else None
        if line is None:
            raise refusal(HTTPStatus.BAD_REQUEST)
        self._line = _NEXT_CHUNK
        self._left = int(line[1], 16)
        self._was_last = not self._left
        # Of the last one the line's end stays: with it the trailers end as a head does.
        return end - at - (2 if self._was_last else 0)

    def _skip_trailers(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n\r\n", at, at + self._max_trailer_bytes)
        if end < 0:
            if len(data) - at >= self._max_trailer_bytes:
                raise refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            if _BARE_LF.search(data, at):
                raise refusal(HTTPStatus.BAD_REQUEST)
            return 0
        _parse_fields(data[at + 2 : end + 4])
        self.complete = True
        return end + 4 - at


def refusal(status: HTTPStatus) -> Problem:
    """Return why a request is not taken."""
    return Problem(status, _DETAILS.get(status, status.phrase))


class _Framing(msgspec.Struct, frozen=True, gc=False):
    """Header fields, and what they say of the body and of what follows it."""

    headers: dict[str, str]
    length: int | None
    keeps_alive: bool
    expects_continue: bool


class _Remembered(msgspec.Struct, frozen=True, gc=False):
    """Fields that were parsed, to be known again: a client sends the same with each request.

    Only the digits of the body's length may differ, and are looked at anew.
    """

    before: bytes
    after: bytes
    version: str
    framing: _Framing

    @classmethod
    def of(cls, block: bytes, version: str, framing: _Framing) -> _Remembered | None:
        """Return what is remembered of the fields of a body that has some, if it is worth it."""
        if len(block) > MAX_REMEMBERED_BYTES:
            return None
        if (length := _LENGTH_FIELD.search(block)) is None:
            return None
        return cls(block[: length.start(1)], block[length.end(1) :], version, framing)

    def parse(self, block: bytes, version: str) -> _Framing | None:
        """Return what fields say that differ in the length at most; ``None`` for any others."""
        if not (block.startswith(self.before) and block.endswith(self.after)):
            return None
        digits = block[len(self.before) : len(block) - len(self.after)]
        if not digits.isdigit() or len(digits) > MAX_LENGTH_DIGITS or version != self.version:
            return None
        known = self.framing
        headers = {**known.headers, "content-length": digits.decode()}
        return _Framing(headers, int(digits), known.keeps_alive, known.expects_continue)


def _parse_framing(block: bytes, version: str) -> _Framing:
    fields = _parse_fields(block[2:])
    is_newer = version == "1.1"
    host = fields.get("host")
    length = _length(fields, version)
    if is_newer if host is None else not is_host(host):
        raise refusal(HTTPStatus.BAD_REQUEST)
    return _Framing(
        fields,
        length,
        keeps_alive=is_newer and not _has_word(fields, "connection", "close"),
        expects_continue=is_newer and _has_word(fields, "expect", "100-continue"),
    )


_NAMES = {
    written.encode(): name
    for name in (
        *("accept", "accept-encoding", "accept-language", "authorization", "cache-control"),
        *("connection", "content-length", "content-type", "cookie", "host", "last-event-id"),
        *("origin", "pragma", "referer", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site"),
        *("user-agent", "x-forwarded-for"),
    )
    for written in (name, name.title())
}
"""Those that most requests have, as most write them."""

_SPACE = (b" ", b"\t")


class _Fields:
    """Is told of header fields by llhttp."""

    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key = _NAMES.get(name) or name.decode().lower()
        text = value.decode("latin-1")
        if value[-1:] in _SPACE:
            text = text.rstrip(" \t")
        if key in self.fields:  # RFC 9110 §5.3; RFC 6265 §5.4
            text = f"{self.fields[key]}{'; ' if key == 'cookie' else ', '}{text}"
        self.fields[key] = text

    def on_headers_complete(self) -> None:
        self.complete = True


def _parse_fields(block: bytes) -> dict[str, str]:
    """Take fields apart, up to the empty line that ends them."""
    if block.count(b"\n") > MAX_FIELDS + 1:
        raise refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    found = _Fields()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\n")
        parser.feed_data(block)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        # What it says of the body, or of an upgrade, is not asked for: that is decided here.
        if not found.complete:
            raise refusal(HTTPStatus.BAD_REQUEST) from error
    return found.fields


def _length(fields: dict[str, str], version: str) -> int | None:
    """Return the length of a body, ``None`` where it comes in chunks (RFC 9112 §6.3)."""
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        if _LENGTH.fullmatch(length):
            return int(length)
    elif length is None and version == "1.1":
        if coding.lower() == "chunked":
            return None
        raise refusal(HTTPStatus.NOT_IMPLEMENTED)
    raise refusal(HTTPStatus.BAD_REQUEST)


def _split_target(target: str, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return path and query, and the fields; a whole URL's host is one (RFC 9112 §3.2.2)."""
    if target[0] == "/" or target == "*":
        return target, fields
    url = _ABSOLUTE.fullmatch(target)
    if url is None or not is_host(url[1]):
        raise refusal(HTTPStatus.BAD_REQUEST)
    path = url[2] if url[2].startswith("/") else f"/{url[2]}"
    return path, {**fields, "host": url[1]}


def _has_word(fields: dict[str, str], name: str, word: str) -> bool:
    """Whether a field, if there is one, is a list with this word, in whatever case."""
    if name not in fields:
        return False
    return word in [each.strip() for each in fields[name].lower().split(",")]
