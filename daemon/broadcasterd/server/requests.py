"""Reading HTTP/1.1 requests (RFC 9112): bytes go in, heads and pieces of bodies come out.

No I/O, and no guess: where somebody else could see another end of a message, or another message,
there is none, and the connection is over (request smuggling). The fields of a head are
taken apart elsewhere (``framing.py``). Where a head and where a body end is found here, so that it
is known to the byte.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec

from broadcasterd.errors import Problem
from broadcasterd.server.framing import KnownFields, Remembered, parse_fields, refusal
from broadcasterd.server.headers import is_host

PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""The beginning of HTTP/2 without TLS, as far as it looks like a head (RFC 9113 §3.4)."""

MAX_CHUNK_LINE_BYTES = 256
"""A chunk's size has up to 16 digits. Its extensions mean nothing to anybody."""

_TCHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rf"({_TCHARS}) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n".encode())
_BEGINNING = re.compile(rf"\r?\Z|{_TCHARS}".encode())
_BARE_LF = re.compile(rb"(?<!\r)\n")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)

_EXTENSION = rf';[ \t]*{_TCHARS}([ \t]*=[ \t]*({_TCHARS}|"[\t -!#-\[\]-~]*"))?'
_CHUNK_LINE = rf"([0-9A-Fa-f]{{1,16}})({_EXTENSION})*\r\n"
_FIRST_CHUNK = re.compile(_CHUNK_LINE.encode())
_NEXT_CHUNK = re.compile(rf"\r\n{_CHUNK_LINE}".encode())


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
        known: the fields that other connections had.

    """

    __slots__ = (
        "_before",
        "_buffer",
        "_chunks",
        "_known",
        "_left",
        "_max_head_bytes",
        "_skipped_a_line",
    )

    def __init__(self, max_head_bytes: int, known: KnownFields) -> None:
        self._max_head_bytes = max_head_bytes
        self._known = known
        self._buffer = b""
        self._skipped_a_line = False
        self._left = 0  # bytes of the body that are still to come
        self._chunks: _Chunks | None = None
        self._before: Remembered | None = None  # the fields of the request before

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
            return parse_fields(b"\r\n".join([*(lines if end else lines[:-1]), b"", b""]))
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
            framing = self._known.parse(block, version)
            self._before = Remembered.of(block, version, framing) if framing.length else None
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
        parse_fields(data[at + 2 : end + 4])
        self.complete = True
        return end + 4 - at


def _split_target(target: str, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return path and query, and the fields; a whole URL's host is one (RFC 9112 §3.2.2)."""
    if target[0] == "/" or target == "*":
        return target, fields
    url = _ABSOLUTE.fullmatch(target)
    if url is None or not is_host(url[1]):
        raise refusal(HTTPStatus.BAD_REQUEST)
    path = url[2] if url[2].startswith("/") else f"/{url[2]}"
    return path, {**fields, "host": url[1]}
