"""An event stream as raw bytes bring it: head, framing, and blocks, in pieces of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.sse import Event, parse


@dataclass(frozen=True, slots=True)
class Block:
    """What one blank line ended: the id in it, if any, and the event, if it makes one."""

    id: str | None
    event: Event | None


class Response:
    """The answer to a subscriber.

    Attributes:
        status: 0 until the head is there.
        is_whole: whether it came to its proper end.

    """

    def __init__(self) -> None:
        self.status = 0
        self.is_whole = False
        self._raw = bytearray()
        self._text = bytearray()  # of the body, behind the last blank line
        self._left: int | None = None  # of a body that says how long it is

    def feed(self, data: bytes) -> Iterator[Block]:
        """Take a piece; yield the blocks that it completes."""
        assert not self.is_whole, f"{data!r} follows the end"
        self._raw += data
        if not self.status and not self._take_head():
            return
        for piece in self._pieces():
            *blocks, self._text = (self._text + piece).split(b"\n\n")
            for block in blocks:
                yield _block(block.decode())

    def _take_head(self) -> bool:
        head, end, rest = self._raw.partition(b"\r\n\r\n")
        if not end:
            return False
        status, *fields = head.decode("latin-1").lower().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        self.status = int(status.split()[1])
        if headers.get("transfer-encoding") != "chunked":
            self._left = int(headers.get("content-length", "0"))
            self.is_whole = self._left == 0
        self._raw = rest
        return True

    def _pieces(self) -> Iterator[bytearray]:
        if self._left is not None:
            piece, self._raw = self._raw, bytearray()
            self._left -= len(piece)
            self.is_whole = self._left == 0
            yield piece
            return
        position = 0
        while (end_of_size := self._raw.find(b"\r\n", position)) >= 0:
            begin = end_of_size + 2
            end = begin + int(self._raw[position:end_of_size], 16)
            if len(self._raw) < end + 2:
                break
            assert self._raw[end : end + 2] == b"\r\n", "a chunk has another length than it says"
            self.is_whole = begin == end
            position = end + 2
            yield self._raw[begin:end]
        del self._raw[:position]


def _block(text: str) -> Block:
    lines = text.split("\n")
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    event_id = ids[-1] if ids else None
    return Block(event_id, next(parse([*lines, ""], last_event_id=event_id or ""), None))
