r"""Writing the event-stream format (WHATWG HTML §9.2, Server-sent events).

A *block* is one event without its id; a *frame* is a block with its id, inside an HTTP/1.1 chunk
(RFC 9112 §7.1), so that the bytes that the fan-out writes to a socket are encoded once per event,
whatever the number of subscribers::

    "2d\r\nevent: greeting\ndata: hello\nid: 7f3c9a1b-42\n\n\r\n"

``decoder.py`` reads it.
"""

from __future__ import annotations

import json
import re

from broadcasterd.core.event import END, GAP, Event
from broadcasterd.core.reasons import EndReason

HEARTBEAT = b":\n"
"""A comment without a blank line: several client libraries make an event of a blank line."""

LAST_CHUNK = b"0\r\n\r\n"

LINE_BREAK = re.compile(r"\r\n|\r|\n")


def encode_block(event: Event) -> bytes:
    r"""Encode all of an event but its id.

    ``Event("a\nb", "greeting")`` is ``event: greeting\ndata: a\ndata: b\n\n``. CR, LF and CRLF
    are all line breaks, and arrive as LF: the format can carry no other.

    Raises:
        UnicodeEncodeError: the text has half of a surrogate pair, which UTF-8 cannot hold.

    """
    kind = "" if event.event in {None, "", "message"} else f"event: {event.event}\n"
    retry = "" if event.retry is None else f"retry: {event.retry}\n"
    data = event.data
    if "\r" in data:
        data = data.replace("\r\n", "\n").replace("\r", "\n")
    if "\n" in data:  # a megabyte may be nothing else
        data = data.replace("\n", "\ndata: ")
    return f"{kind}{retry}data: {data}\n\n".encode()


def encode_frame(event_id: str, block: bytes) -> bytes:
    """Put the id into a block, as its last line, and the whole into one HTTP/1.1 chunk.

    The id is last because at least one popular client library takes an event for seen as soon as
    it has read that line: cut off inside an event, it would never ask for that event again.
    """
    last = b"id: %b\n\n" % event_id.encode()
    # As chunk() does, but with one copy less: this is done for every event.
    return b"%x\r\n%b%b\r\n" % (len(block) - 1 + len(last), block[:-1], last)


def chunk(data: bytes) -> bytes:
    """Wrap non-empty ``data`` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unchunk(frame: bytes) -> bytes:
    """Undo :func:`chunk`, for a path that frames its own way (TLS, HTTP/2)."""
    return frame[frame.index(b"\n") + 1 : -2]


def block_of(frame: bytes) -> bytes:
    """Undo :func:`encode_frame`: return the block without its id."""
    return frame[frame.index(b"\n") + 1 : frame.rindex(b"id: ")] + b"\n"


def encode_opening(stream_id: str, *, retry_ms: int) -> bytes:
    """Encode the first bytes of a stream, without a blank line, which some clients dispatch."""
    return b"retry: %d\n: stream %b\n" % (retry_ms, stream_id.encode())


def encode_priming(event_id: str) -> bytes:
    """Encode an id without data: a client remembers it, and by the standard fires nothing."""
    return b"id: %b\n\n" % event_id.encode()


def encode_gap(*, asked: str, oldest: str | None) -> bytes:
    """Encode the news that events between ``asked`` and ``oldest`` are lost to this client."""
    return _own_event(GAP, {"asked": asked, "oldest": oldest})


def encode_end(reason: EndReason, *, retry_ms: int | None = None) -> bytes:
    """Encode why a stream ends, and whether (and after how long) to come back."""
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    return retry + _own_event(END, {"reason": reason.value, "reconnect": reason.reconnect})


def _own_event(name: str, data: dict[str, object]) -> bytes:
    # No id: an event of the daemon's own must not move the client's cursor.
    text = json.dumps(data, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()
