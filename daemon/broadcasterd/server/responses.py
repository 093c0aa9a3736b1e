"""Writing HTTP/1.1 responses (RFC 9112): a head, and what frames a body. No I/O."""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from broadcasterd.server.headers import SECURITY_HEADERS, RawHeaders, secure

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = (b"connection", b"close")
LAST_CHUNK = b"0\r\n\r\n"

WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_SECURITY_NAMES = frozenset(name for name, _ in SECURITY_HEADERS)
_SECURE = b"".join([b"%b: %b\r\n" % field for field in SECURITY_HEADERS])


def encode_head(
    status: int, fields: RawHeaders, *, closes: bool, length: int | None = None
) -> bytes:
    """Return a response's head.

    Args:
        status: the status code.
        fields: names, in lower case, and values. What every response has is added.
        closes: whether this is the connection's last response.
        length: bytes of the body, where ``fields`` do not say them.

    Raises:
        ValueError: a field has a line break, and would be two.

    """
    always = _unchanging(status, tuple(fields), closes)
    framing = b"" if length is None else b"content-length: %d\r\n" % length
    return b"%b%b%b\r\n" % (always, framing, _date(int(time.time())))


@lru_cache(maxsize=256)  # most answers differ in their length alone
def _unchanging(status: int, fields: tuple[tuple[bytes, bytes], ...], closes: bool) -> bytes:  # noqa: FBT001
    lines = [b"%b: %b\r\n" % field for field in fields]
    if closes and CLOSE not in fields:
        lines.append(b"connection: close\r\n")
    said = b"".join(lines)
    if said.count(b"\n") != len(lines) or said.count(b"\r") != len(lines):
        raise ValueError("a field of the response has a line break")
    added = _SECURE if _SECURITY_NAMES.isdisjoint(dict(fields)) else _missing_of(fields)
    return b"%b%b%b" % (_status_line(status), said, added)


def has_no_body(method: str, status: int) -> bool:
    """Whether a response ends with its head, whatever its fields say (RFC 9112 §6.3)."""
    return method == "HEAD" or status in WITHOUT_BODY


def _missing_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return what is to be added to a response that brings some of it."""
    all_of_it = [*fields]
    said = len(all_of_it)
    secure(all_of_it)
    return b"".join([b"%b: %b\r\n" % field for field in all_of_it[said:]])


@lru_cache
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())


@lru_cache(maxsize=1)
def _date(unix_time: int) -> bytes:
    return b"date: %b\r\n" % formatdate(unix_time, usegmt=True).encode()
