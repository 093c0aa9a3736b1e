"""The frames of one HTTP/2 connection: what a bad one costs, and how many there may be.

After CVE-2023-44487: whatever is cheaper to send than to serve is counted by the second. A message
that is malformed costs its own stream, and never the others (RFC 9113 §8.1.1).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import InvalidBodyLengthError, ProtocolError
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, RstStreamFrame
from typing_extensions import override

from broadcasterd.access.ratelimit import RateLimiter

RESETS_PER_S = 100
"""A page that is left gives up what it asked for, once; who does so all the time attacks."""

CONTROL_FRAMES_PER_S = 300
"""Frames that carry nothing, beyond two for each frame of data that was sent: its reader opens two
windows for it. A browser sends one for each request."""

MAX_OWED = 10_000
"""Frames of that kind that a reader may still send for the data that it was sent."""

FRAMES_IN_A_ROW = 20
"""Frames between two turns of everybody else: a head takes some 200 µs."""

FRAME_HEAD_BYTES = 9
FRAME_TYPE_AT = 3
RESET = RstStreamFrame.type
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Frames(H2Connection):
    """h2's connection, which counts what it is sent.

    Attributes:
        resets: streams that the peer gave up (which :class:`Batches` sees), or that its mistakes
            cost.
        controls: frames of its that carry neither a head nor data.

    """

    resets = 0
    controls = 0

    @override
    def _receive_frame(self, frame: Frame) -> list[Event]:
        if not isinstance(frame, HeadersFrame | ContinuationFrame) and not (
            isinstance(frame, DataFrame) and frame.data
        ):
            self.controls += 1
        was_open = frame.stream_id in self.streams
        try:
            return super()._receive_frame(frame)
        except InvalidBodyLengthError:
            if isinstance(frame, DataFrame) and frame.flow_controlled_length:
                self.increment_flow_control_window(frame.flow_controlled_length)
            return self._refuse(frame.stream_id)
        except ProtocolError:
            # The head was decoded (what comes later can be, too), and is none of a request.
            if was_open or not frame.stream_id or frame.stream_id not in self.streams:
                raise
            return self._refuse(frame.stream_id)

    def _refuse(self, stream_id: int) -> list[Event]:
        """Reset a stream for what its peer did; upstream, that ends the connection."""
        self.resets += 1
        with suppress(ProtocolError):
            self.reset_stream(stream_id, ErrorCodes.PROTOCOL_ERROR)
        return [StreamReset(stream_id=stream_id, error_code=ErrorCodes.PROTOCOL_ERROR)]


class Calm:
    """Whether a peer keeps within what it may send in a second.

    Args:
        frames: the connection.
        clock: seconds on a monotonic clock.

    """

    def __init__(self, frames: Frames, clock: Callable[[], float]) -> None:
        self._frames = frames
        self._resets = RateLimiter(RESETS_PER_S, RESETS_PER_S, max_keys=1, clock=clock)
        self._controls = RateLimiter(
            CONTROL_FRAMES_PER_S, 2 * CONTROL_FRAMES_PER_S, max_keys=1, clock=clock
        )
        self._owed = 0

    def data_sent(self) -> None:
        """Note that a frame of data was sent: its reader will open windows for it."""
        self._owed = min(self._owed + 2, MAX_OWED)

    def is_kept(self) -> bool:
        """Look at what came since the last look."""
        frames = self._frames
        resets, frames.resets = frames.resets, 0
        controls, frames.controls = frames.controls, 0
        answers = min(controls, self._owed)
        self._owed -= answers
        controls -= answers
        is_kept = True
        if resets:  # a bucket that is full would let any number pass, once
            is_kept = resets <= RESETS_PER_S and self._resets.take("", resets) == 0.0
        if controls:
            is_kept = self._controls.take("", controls) == 0.0 and is_kept
        return is_kept


class Batches:
    """Cuts what a connection brings into pieces of a few frames: each takes little time.

    Attributes:
        resets: streams that the peer gave up in what was cut, whoever looks sets it back. They are
            known before any frame is decoded: of many connections at once, none would get as far
            as to have given up too many in a second.

    """

    def __init__(self) -> None:
        self.resets = 0
        self._head = b""  # as much of a frame's head as is there
        self._left = len(PREFACE)  # bytes that are still to come of the frame

    def cut(self, data: bytes) -> list[bytes]:
        """Return the pieces of what came; all of them together are what came."""
        pieces = []
        start = at = frames = 0
        while at < len(data) and self.resets <= RESETS_PER_S:  # more, and nothing else matters
            if not self._left:
                missing = FRAME_HEAD_BYTES - len(self._head)
                self._head += data[at : at + missing]
                at = min(at + missing, len(data))
                if len(self._head) < FRAME_HEAD_BYTES:
                    break
                self.resets += self._head[FRAME_TYPE_AT] == RESET
                self._left, self._head = int.from_bytes(self._head[:FRAME_TYPE_AT]), b""
            end = min(at + self._left, len(data))
            self._left -= end - at
            at = end
            if not self._left:
                frames += 1
                if frames == FRAMES_IN_A_ROW:
                    pieces.append(data[start:at])
                    start, frames = at, 0
        if start < at:
            pieces.append(data[start:])
        return pieces
