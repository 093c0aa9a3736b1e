"""Writing HTTP/1.1 responses (RFC 9112): a head, and what frames a body. No I/O."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from broadcasterd.server.headers import SECURITY_HEADERS, RawHeaders, secure

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = (b"connection", b"close")
LAST_CHUNK = b"0\r\n\r\n"

_SECURITY_NAMES = frozenset(name for name, _ in SECURITY_HEADERS)
_SECURE = b"".join([b"%b: %b\r\n" % field for field in SECURITY_HEADERS])


def encode_head(status: int, fields: RawHeaders, *, closes: bool) -> bytes:
    """Return a response's head.

    Args:
        status: the status code.
        fields: names, in lower case, and values. What every response has is added.
        closes: whether this is the connection's last response.

    Raises:
        ValueError: a field has a line break, and would be two.

    """
    lines = [b"%b: %b\r\n" % field for field in fields]
    if closes and CLOSE not in fields:
        lines.append(b"connection: close\r\n")
    said = b"".join(lines)
    if said.count(b"\n") != len(lines) or said.count(b"\r") != len(lines):
        raise ValueError("a field of the response has a line break")
    added = _SECURE if _SECURITY_NAMES.isdisjoint(dict(fields)) else _missing_of(fields)
    return b"%b%b%b%b\r\n" % (_status_line(status), said, added, _date(int(time.time())))


def has_no_body(method: str, status: int) -> bool:
    """Whether a response ends with its head, whatever its fields say (RFC 9112 §6.3)."""
    return method == "HEAD" or status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


def _missing_of(fields: RawHeaders) -> bytes:
    """Return what is to be added to a response that brings some of it."""
    all_of_it = [*fields]
    secure(all_of_it)
    return b"".join([b"%b: %b\r\n" % field for field in all_of_it[len(fields) :]])


@lru_cache
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())


@lru_cache(maxsize=1)
def _date(unix_time: int) -> bytes:
    return b"date: %b\r\n" % formatdate(unix_time, usegmt=True).encode()
