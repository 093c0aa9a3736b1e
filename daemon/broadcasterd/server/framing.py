"""The fields of a request's head: taken apart, and what they say of the body (RFC 9112 §6).

llhttp takes them apart. What is remembered of those that came before is found again by its bytes:
a client sends the same fields with each of its requests, and so do the clients of a crowd.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import httptools
import msgspec

from broadcasterd.errors import Problem
from broadcasterd.server.headers import is_host

MAX_FIELDS = 256
"""Each costs more than its bytes; a browser sends some 20."""

MAX_LENGTH_DIGITS = 18
"""A body of more bytes than that nobody sends."""

MAX_REMEMBERED_BYTES = 2048
"""Of fields that are remembered: a browser's, or a program's with its token, are fewer."""

MAX_KNOWN = 64
"""Heads of the clients of a crowd that are known: with what they became, some 4 KB each."""

_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Fields that are not to stay longer than it takes to serve a request."""

_LENGTH = re.compile(rf"[0-9]{{1,{MAX_LENGTH_DIGITS}}}")
_LENGTH_FIELD = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]+)\r\n")

_DETAILS = {
    HTTPStatus.BAD_REQUEST: "this is not HTTP/1.1",
    HTTPStatus.REQUEST_TIMEOUT: "the head of the request took too long (limits.head_timeout)",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        "the head of the request has too many bytes (limits.max_head_bytes)"
    ),
}


def refusal(status: HTTPStatus) -> Problem:
    """Return why a request is not taken."""
    return Problem(status, _DETAILS.get(status, status.phrase))


class Framing(msgspec.Struct, frozen=True, gc=False):
    """Header fields, and what they say of the body and of what follows it."""

    headers: dict[str, str]
    length: int | None
    keeps_alive: bool
    expects_continue: bool


class Remembered(msgspec.Struct, frozen=True, gc=False):
    """Fields that were parsed, to be known again: a client sends the same with each request.

    Only the digits of the body's length may differ, and are looked at anew.
    """

    before: bytes
    after: bytes
    version: str
    framing: Framing

    @classmethod
    def of(cls, block: bytes, version: str, framing: Framing) -> Remembered | None:
        """Return what is remembered of the fields of a body that has some, if it is worth it."""
        if len(block) > MAX_REMEMBERED_BYTES:
            return None
        if (length := _LENGTH_FIELD.search(block)) is None:
            return None
        return cls(block[: length.start(1)], block[length.end(1) :], version, framing)

    def parse(self, block: bytes, version: str) -> Framing | None:
        """Return what fields say that differ in the length at most; ``None`` for any others."""
        if not (block.startswith(self.before) and block.endswith(self.after)):
            return None
        digits = block[len(self.before) : len(block) - len(self.after)]
        if not digits.isdigit() or len(digits) > MAX_LENGTH_DIGITS or version != self.version:
            return None
        known = self.framing
        headers = {**known.headers, "content-length": digits.decode()}
        return Framing(headers, int(digits), known.keeps_alive, known.expects_continue)


class KnownFields:
    """Fields that first requests on connections had, to be known again, byte by byte.

    Those with a token or a cookie are not among them. Beyond ``MAX_KNOWN`` the oldest are
    forgotten.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, str], Framing] = {}

    def __len__(self) -> int:
        return len(self._known)

    def parse(self, block: bytes, version: str) -> Framing:
        """Return what fields say; a line break comes before the first of them.

        Raises:
            Problem: they are malformed.

        """
        head = block, version
        framing = self._known.get(head)
        if framing is None:
            framing = parse_framing(block, version)
            if len(block) <= MAX_REMEMBERED_BYTES and _SECRETS.isdisjoint(framing.headers):
                if len(self._known) >= MAX_KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[head] = framing
        return framing


def parse_framing(block: bytes, version: str) -> Framing:
    """Return what fields say; a line break comes before the first of them.

    Raises:
        Problem: they are malformed.

    """
    fields = parse_fields(block[2:])
    is_newer = version == "1.1"
    host = fields.get("host")
    length = _length(fields, version)
    if is_newer if host is None else not is_host(host):
        raise refusal(HTTPStatus.BAD_REQUEST)
    return Framing(
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


def parse_fields(block: bytes) -> dict[str, str]:
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


def _has_word(fields: dict[str, str], name: str, word: str) -> bool:
    """Whether a field, if there is one, is a list with this word, in whatever case."""
    if name not in fields:
        return False
    return word in [each.strip() for each in fields[name].lower().split(",")]
