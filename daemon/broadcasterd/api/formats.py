"""The formats of a body: how each becomes events, and how an event is encoded for a session.

============================ ===========================================================
``application/json``         one event or an array of them, all or nothing
``application/x-ndjson``     a stream of events, one a line, broadcast as they arrive
``text/event-stream``        an upstream SSE stream, broadcast as it arrives
any other ``text/*``         the body is the data; ``?event=`` names its type
============================ ===========================================================

Nothing here waits, and nothing knows a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Protocol

import msgspec

from broadcasterd.api.fields import Malformed, codings, content_type
from broadcasterd.api.json_body import check_utf8, without_bom
from broadcasterd.api.posted import parse_one
from broadcasterd.api.request import Head
from broadcasterd.config import Sessions
from broadcasterd.core.cost import check_block_fits
from broadcasterd.core.decoder import Received, StreamDecoder
from broadcasterd.core.event import EncodedEvent, Event
from broadcasterd.core.wire import encode_block
from broadcasterd.errors import BadRequest, InvalidEvent, Problem, TooLarge
from broadcasterd.figures.counts import Format

BYTES_PER_LINE = 5
"""What each line break adds at least: ``data:`` and a space, less the CR of a CRLF."""

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"
STREAM_TYPE = "text/event-stream"

_EXPECTED = "expected application/json, application/x-ndjson, text/event-stream or text/plain"
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


_FORMATS = {
    JSON_TYPE: Format.JSON,
    NDJSON_TYPE: Format.NDJSON,
    STREAM_TYPE: Format.EVENT_STREAM,
    "text/plain": Format.TEXT,
}


def format_of(head: Head) -> Format:
    """Return what a body is counted as, whether it is taken or not."""
    field = head.headers.get("content-type", "")
    if found := _FORMATS.get(field):
        return found
    media_type = field.partition(";")[0].strip().lower()
    other = Format.TEXT if media_type.startswith("text/") else Format.OTHER
    return _FORMATS.get(media_type, other)


def media_type_of(head: Head) -> str:
    """Return the type of a body, in lower case and without parameters.

    Raises:
        Problem: 415, the type cannot be published, or the body has an encoding that is not taken.

    """
    field = head.headers.get("content-type", "")
    try:
        media_type, charset = content_type(field)
    except Malformed as error:
        fault = "a content type that is malformed, or not one" if field else "no content type"
        raise _unsupported(f"{fault}: {_EXPECTED}") from error
    if charset is not None and charset not in _UTF8:
        raise _unsupported(f"charset {charset!r} is not supported: send UTF-8")
    if "content-encoding" in head.headers and codings(head.headers["content-encoding"]):
        raise _unsupported("a compressed body is not supported: send it as it is")
    if media_type not in {JSON_TYPE, NDJSON_TYPE} and not media_type.startswith("text/"):
        raise _unsupported(f"{media_type}: {_EXPECTED}")
    return media_type


def _unsupported(detail: str) -> Problem:
    return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


def encode(event: Event, limits: Sessions, subject: str | None = None) -> EncodedEvent:
    """Return an event as a session takes it.

    An idempotency key is ``subject``'s own: nobody suppresses the events of others by their keys.

    A reconnection time below ``min_retry_ms`` becomes that: with 0, all who listen would come back
    hundreds of times a second when the daemon is gone.

    Raises:
        InvalidEvent: UTF-8 cannot encode its text.
        TooLarge: no log of ``max_history_bytes`` could retain it.

    """
    if event.retry is not None and event.retry < limits.min_retry_ms:
        event = msgspec.structs.replace(event, retry=limits.min_retry_ms)
    if len(event.data) * (1 + BYTES_PER_LINE) > limits.max_history_bytes:
        _check_lines(event.data, limits.max_history_bytes)
    try:
        block = encode_block(event)
    except UnicodeEncodeError as error:
        msg = "data and event have to be text that UTF-8 can encode"
        raise InvalidEvent(msg) from error
    key = event.idempotency_key
    if key is not None and subject is not None:
        key = f"{subject}\0{key}"
    check_block_fits(block, max_bytes=limits.max_history_bytes, ttl=event.ttl, key=key)
    return EncodedEvent(block, event.ttl, key)


def _check_lines(data: str, max_bytes: int) -> None:
    """Refuse, before it is encoded, what grows too large by its line breaks."""
    lines = max(data.count("\n"), data.count("\r"))
    if len(data) + lines * BYTES_PER_LINE > max_bytes:
        raise TooLarge(
            f"an event of {lines} lines does not fit into what a session retains"
            f" (sessions.max_history_bytes is {max_bytes})"
        )


# --- bodies that are read whole --------------------------------------------------------------


def parse_text(body: bytes, head: Head) -> Event:
    """Make an event whose data is the body."""
    return Event(check_utf8(body), head.parameter("event"))


# --- streams ---------------------------------------------------------------------------------


class EventStream(Protocol):
    """Makes events of a body that arrives in pieces."""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that a piece completes."""

    def finish(self) -> Iterator[Event]:
        """Yield the events that the end of the body completes."""

    def where(self) -> dict[str, object]:
        """Say which part of the body was being read."""

    def remarks(self) -> dict[str, object]:
        """Say what a publisher has to know besides: nothing, where all was as it should be."""

    @property
    def kept_bytes(self) -> int:
        """Bytes kept of an event that is not complete."""


def stream_of(media_type: str, head: Head, *, max_event_bytes: int) -> EventStream | None:
    """Return the reader of a body of that type; ``None`` if such a body is read whole.

    Raises:
        BadRequest: ``final`` has no known form.

    """
    match media_type:
        case "application/x-ndjson":
            return NdjsonEvents(max_event_bytes)
        case "text/event-stream":
            return RelayedEvents(max_event_bytes, takes_final=_takes_final(head))
    return None


def _takes_final(head: Head) -> bool:
    final = head.parameter("final")
    if final not in {None, "accept", "discard"}:
        msg = "final: expected accept or discard"
        raise BadRequest(msg)
    return final == "accept"


class NdjsonEvents:
    """One event a line; empty lines mean nothing. Lines are counted from 1."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()
        self._line = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events of the lines that a piece completes."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:  # one by one: it may be held back meanwhile
            self._line += 1
            line = self._line_with(piece[start:end])
            start = end + 1
            if line[:1] == b"{" or (line := _stripped(line)):
                yield parse_one(line)
        self._rest += piece[start:]
        if len(self._rest) > self._max_line_bytes:
            self._line += 1
            raise self._too_large()

    def finish(self) -> Iterator[Event]:
        """Yield the event of the last line, which needs no line break."""
        self._line += 1
        if line := _stripped(self._line_with(b"")):
            yield parse_one(line)

    def where(self) -> dict[str, object]:
        """Name the line."""
        return {"line": self._line}

    def remarks(self) -> dict[str, object]:
        """Say nothing: a line is an event, or is refused."""
        return {}

    @property
    def kept_bytes(self) -> int:
        """Bytes kept of a line that is not complete, with the room that it has to grow."""
        return self._rest.__alloc__() if self._rest else 0

    def _line_with(self, end: bytes) -> bytes:
        """Return the line with that end; it is UTF-8."""
        line = end
        if self._rest:
            line = bytes(self._rest + end)
            self._rest.clear()
        if len(line) > self._max_line_bytes:
            raise self._too_large()
        if not line.isascii():
            check_utf8(line)
        return line

    def _too_large(self) -> TooLarge:
        return TooLarge(f"a line has at most {self._max_line_bytes} bytes (server.max_body_bytes)")


def _stripped(line: bytes) -> bytes:
    """Return a line without its byte order mark, and nothing for one that is empty."""
    line = without_bom(line)
    return b"" if line.isspace() else line


class RelayedEvents:
    """The events of another SSE stream.

    Its ids are not taken over: each event gets a new one. Nor are its reconnection times: when to
    come back to that stream is its relay's own affair.

    Args:
        max_event_chars: what one of its events may have.
        takes_final: whether a last event without its blank line is taken all the same.

    """

    def __init__(self, max_event_chars: int, *, takes_final: bool = False) -> None:
        self._decoder = StreamDecoder(max_event_chars=max_event_chars)
        self._takes_final = takes_final
        self._is_incomplete = False
        self._events = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that a piece completes."""
        for received in self._decoder.feed(piece):
            yield self._relayed(received)
            self._events += 1  # not before: this event may be the refused one

    def finish(self) -> Iterator[Event]:
        """Yield the last event if it lacks its blank line and is taken."""
        last = self._decoder.finish()
        if last is not None and self._takes_final:
            yield self._relayed(last)
            self._events += 1
        else:
            self._is_incomplete = last is not None

    def where(self) -> dict[str, object]:
        """Name the event, counted from 1."""
        return {"event": self._events + 1}

    def remarks(self) -> dict[str, object]:
        """Say whether the last event was cut off, and how often something was no UTF-8."""
        remarks = {"incomplete": self._is_incomplete, "replaced": self._decoder.replaced}
        return {name: value for name, value in remarks.items() if value}

    @property
    def kept_bytes(self) -> int:
        """Bytes kept of an event that is not complete."""
        return self._decoder.kept_bytes

    @staticmethod
    def _relayed(received: Received) -> Event:
        return Event(received.data, received.event)
