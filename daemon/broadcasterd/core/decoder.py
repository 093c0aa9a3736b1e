"""Reading the event-stream format (WHATWG HTML §9.2.6): relayed streams, and our own frames."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from broadcasterd.core.wire import LINE_BREAK, unchunk
from broadcasterd.errors import TooLarge

_REPLACEMENT = "\ufffd"
_REPLACEMENT_BYTES = _REPLACEMENT.encode()

_RETRY = re.compile(r"[0-9]{1,9}")  # eleven days in ms; longer is somebody's mistake


@dataclass(frozen=True, slots=True)
class Received:
    """An event as a client sees it, and as EventSource would dispatch it."""

    data: str
    event: str
    last_event_id: str
    retry: int | None = None


class StreamDecoder:
    """Decode an event stream that arrives in pieces of any size.

    As the standard has it, what is not UTF-8 becomes U+FFFD (Encoding §4.1).

    Args:
        max_event_chars: the most that one unfinished event may hold.

    Attributes:
        replaced: how often something was no UTF-8.

    """

    def __init__(self, *, max_event_chars: int) -> None:
        self._max_event_chars = max_event_chars
        self.replaced = 0
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._before = b""  # the last two bytes: an encoded U+FFFD may be cut
        # What is kept is UTF-8: of small strings, each takes many times its characters.
        self._rest = bytearray()  # an unfinished line
        self._rest_size = 0  # its characters
        self._after_cr = False  # a LF that follows belongs to the CR
        self._at_start = True  # a BOM is dropped only there
        self._size = 0  # characters of the unfinished event, in whole lines
        self._last_event_id = ""
        self._data = bytearray()  # each line with its line break
        self._event = ""
        self._retry: int | None = None

    def feed(self, data: bytes) -> Iterator[Received]:
        """Decode a piece and yield the events that it completes.

        Raises:
            TooLarge: an event has more characters than ``max_event_chars``.

        """
        yield from self._feed(self._decode(data))

    def finish(self) -> Received | None:
        """Return the last event, if it lacks its blank line: by the standard it is none.

        Raises:
            TooLarge: as :meth:`feed`.

        """
        rest = self._decode(b"", final=True)
        return next(self._feed(f"{rest}\n\n"), None)

    def _feed(self, text: str) -> Iterator[Received]:
        if self._at_start and text:
            text = text.removeprefix("\ufeff")
            self._at_start = False
        for line in self._lines(text):
            if line:
                self._field(line)
            elif (event := self._dispatch()) is not None:
                yield event

    def _decode(self, data: bytes, *, final: bool = False) -> str:
        text = self._text.decode(data, final)
        seen = self._before + data
        if found := text.count(_REPLACEMENT):  # some may be encoded in the stream itself
            self.replaced += found - seen.count(_REPLACEMENT_BYTES)
        self._before = seen[-2:]
        return text

    def _lines(self, text: str) -> Iterator[str]:
        if not text:
            return
        if self._after_cr:
            text = text.removeprefix("\n")
        self._after_cr = text.endswith("\r")
        start = 0
        for found in LINE_BREAK.finditer(text):  # one by one: their reader may wait in between
            line = text[start : found.start()]
            start = found.end()
            if self._rest:
                self._keep(line)  # neither copy nor search the kept part: pieces may be tiny
                line = self._rest.decode()
                self._rest, self._rest_size = bytearray(), 0
            self._check_size(len(line))
            if not line.startswith(":"):  # a comment holds nothing
                self._size += len(line) + 1
            yield line
        self._keep(text[start:])

    def _keep(self, rest: str) -> None:
        if rest:
            self._rest += rest.encode()
            self._rest_size += len(rest)
            self._check_size(self._rest_size)

    @property
    def kept_bytes(self) -> int:
        """Bytes kept of an event that is not complete."""
        return len(self._rest) + len(self._data) + len(self._event) + len(self._last_event_id)

    def _check_size(self, line_size: int) -> None:
        if self._size + line_size > self._max_event_chars:
            msg = f"an event has at most {self._max_event_chars} characters"
            raise TooLarge(msg)

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data += value.encode()
                self._data += b"\n"
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._last_event_id = value
            case "retry" if _RETRY.fullmatch(value):
                self._retry = int(value)

    def _dispatch(self) -> Received | None:
        data, event, retry = self._data, self._event, self._retry
        self._forget_event()
        if not data:
            return None
        return Received(data[:-1].decode(), event or "message", self._last_event_id, retry)

    def _forget_event(self) -> None:
        self._size = 0
        self._data = bytearray()
        self._event = ""
        self._retry = None


def read_frame(frame: bytes) -> Received:
    """Return the event in a frame of ours, whose form is known.

    :class:`StreamDecoder` looks at each line: at 100,000 of them for 50 ms, this for less than one.
    """
    text = unchunk(frame).decode()
    start = 0 if text.startswith("data: ") else text.index("\ndata: ") + 1
    end = text.rindex("\nid: ")
    fields = dict(line.split(": ", 1) for line in text[:start].split("\n") if line)
    return Received(
        data=text[start + len("data: ") : end].replace("\ndata: ", "\n"),
        event=fields.get("event", "message"),
        last_event_id=text[end + len("\nid: ") : -2],
        retry=int(fields["retry"]) if "retry" in fields else None,
    )


def decode(stream: Iterable[bytes]) -> list[Received]:
    """Decode a whole stream that is known to be ours (no limit on its size)."""
    decoder = StreamDecoder(max_event_chars=sys.maxsize)
    return [event for piece in stream for event in decoder.feed(piece)]
