"""Lines of a pipe as they come, to be published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol

from broadcasterd.client.connection import RequestFailed

READ_BYTES = 64 * 1024  # what a pipe holds
MAX_LINE_BYTES = 64 * 1024 * 1024  # what no daemon takes: a line without an end fills no memory


class Source(Protocol):
    """What lines are read from: a buffered binary file, pipe or socket."""

    def read1(self, size: int, /) -> bytes:
        """Wait until there is anything, and return at most so much of it; nothing at the end."""


def lines_as_they_come(source: Source) -> Iterator[list[bytes]]:
    """Yield lines without their line breaks, as many at once as are there, at least one.

    Raises:
        RequestFailed: a line is longer than `MAX_LINE_BYTES`.

    """
    begun = bytearray()
    while piece := source.read1(READ_BYTES):
        first, *others = piece.split(b"\n")
        begun += first
        if others:
            yield [bytes(begun), *others[:-1]]
            begun = bytearray(others[-1])
        if len(begun) > MAX_LINE_BYTES:
            raise RequestFailed(f"a line has more than {MAX_LINE_BYTES} bytes")
    if begun:
        yield [bytes(begun)]


def event_of(line: bytes, event: str | None) -> bytes:
    """Return the event whose data is a line, in JSON."""
    data = line.decode(errors="replace").removesuffix("\r")
    return json.dumps({"data": data} if event is None else {"data": data, "event": event}).encode()
