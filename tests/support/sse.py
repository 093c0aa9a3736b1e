"""An event stream, parsed by the book (WHATWG HTML §9.2.6).

This is the oracle: it is written from the standard, and shares no line with the daemon's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """An event that a client dispatches. Its ``id`` is the client's cursor from then on."""

    id: str
    data: str
    type: str = "message"


def parse(lines: Iterable[str], *, last_event_id: str = "") -> Iterator[Event]:
    """Yield the events of a stream that is given as lines, without their line breaks.

    An event that lacks its blank line when the stream ends is discarded, as the standard asks.
    """
    data: list[str] = []
    kind = ""
    for line in lines:
        if not line:
            if data:
                yield Event(last_event_id, "\n".join(data), kind or "message")
            data, kind = [], ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            kind = value
        elif field == "id" and "\0" not in value:
            last_event_id = value
