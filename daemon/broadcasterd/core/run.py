"""A run: the events that a reader is sent next, as bytes that lie side by side in the log."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from broadcasterd.core.segment import LARGE_BYTES, Segment
from broadcasterd.core.wire import unchunk


@dataclass(frozen=True, slots=True)
class Cut:
    """The place of a reader that took some bytes of several frames.

    Attributes:
        cursor: the last event that it was sent, ``rest`` included.
        count: how many events those are.
        rest: what it has not taken of the last of them.

    """

    cursor: int
    count: int
    rest: memoryview


class Run:
    """One or more events that follow each other, as the bytes that a reader is sent.

    To be read at once: when the log changes, it is no longer true.

    Args:
        stretches: segments, and the indexes where a stretch begins and ends in each.

    Attributes:
        frames: their frames, joined; of one sealed segment, a slice of its buffer.
        count: how many events there are.
        end: the cursor of a reader that has them.

    """

    __slots__ = ("_stretches", "count", "end", "frames")

    def __init__(self, stretches: Sequence[tuple[Segment, int, int]]) -> None:
        self._stretches = stretches
        pieces = [segment.read(start, end) for segment, start, end in stretches]
        self.frames = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.count = sum(end - start for _, start, end in stretches)
        segment, _, end = stretches[-1]
        self.end = segment.seqs[end - 1]

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the frames."""
        for segment, start, end in self._stretches:
            yield from map(segment.frame, range(start, end))

    def cut(self, sent: int) -> Cut:
        """Return the place of a reader that took so many bytes of it, one or more."""
        count = 0
        for segment, start, end in self._stretches:
            first = segment.start_of(start)
            if (stop := first + sent) <= segment.ends[end - 1]:
                index = bisect_left(segment.ends, stop, start, end)
                frame = segment.read(index, index + 1)
                rest = memoryview(frame)[stop - segment.start_of(index) :]
                if len(frame) <= LARGE_BYTES:
                    rest = memoryview(bytes(rest))  # it may be dropped, and its page with it
                return Cut(segment.seqs[index], count + index - start + 1, rest)
            count += end - start
            sent = stop - segment.ends[end - 1]
        msg = "a reader took more than there is"
        raise ValueError(msg)


class UnchunkedRun:
    """A run for a reader of HTTP/1.0: its frames without the chunks that they are.

    Args:
        run: the same run in chunks. To be read at once, as that.

    """

    __slots__ = ("_run", "count", "end", "frames")

    def __init__(self, run: Run) -> None:
        self._run = run
        self.frames = b"".join([unchunk(frame) for frame in run])
        self.count = run.count
        self.end = run.end

    def cut(self, sent: int) -> Cut:
        """Return the place of a reader that took so many bytes of it, one or more."""
        in_chunks = 0
        for frame in self._run:
            size = len(unchunk(frame))
            if sent <= size:
                cut = self._run.cut(in_chunks + frame.index(b"\n") + 1 + sent)
                return Cut(cut.cursor, cut.count, cut.rest[:-2])
            in_chunks += len(frame)
            sent -= size
        msg = "a reader took more than there is"
        raise ValueError(msg)
