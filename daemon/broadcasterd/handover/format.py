"""The format of a handover: sessions, events and streams, as bytes for the next process.

A handover is a row of *segments*, each small enough to be written, read and given up while the rest
waits: no process needs room for all of it twice. A segment begins with a line that names the format
and its version; then come *records*, each with its length before it (4 bytes, big-endian), as
MessagePack. The events of a session follow it. A record may gain fields at its end without a new
version: a reader skips fields that it does not know, and has a default for fields that it misses.

Times are ages, in seconds before :attr:`Segment.at`: a monotonic clock ends with its process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

import msgspec

MAGIC = b"broadcasterd handover 1\n"

SEGMENT_BYTES = 8 * 1024 * 1024
"""A segment is closed once it has so many: a handover needs as much memory of its own."""

_LENGTH_BYTES = 4


class _Record(msgspec.Struct, frozen=True, array_like=True):
    """An array whose first element names the kind of record."""


class Segment(_Record, frozen=True, tag="segment"):
    """The first record of each segment.

    Attributes:
        handover: names the handover: the same in all of its segments, and in no other.
        index: from 0.
        at: when the handover was begun, Unix time in seconds.

    """

    handover: str
    index: int
    at: float


class SealedLeft(msgspec.Struct, frozen=True, array_like=True):
    """A sealed segment of a log: its frames end to end, and the figures of each, as in memory."""

    frames: memoryview
    ends: memoryview
    seqs: memoryview
    ages: memoryview
    ttls: memoryview | None = None
    keys: list[str | None] | None = None


class SessionLeft(_Record, frozen=True, tag="session"):
    """A session: the state of its log, and how long ago things happened to it.

    Attributes:
        floor: the floor of its log for a reader that skips ``sealed``: to a release before them,
            the events in these are as lost as if a bound had evicted them. It tells clients so.
        sealed: its oldest events, as sealed segments; the others follow as records.
        floor_below: the floor of its log for a reader that takes them, if there are any; and
            ``floor_below_age_s``, the age of that event.

    """

    name: str
    incarnation: str
    floor: int
    last: int
    opened_s: float
    active_s: float
    published_s: float
    subject: str | None = None
    floor_age_s: float | None = None
    sealed: list[SealedLeft] = []
    floor_below: int | None = None
    floor_below_age_s: float | None = None


class EventLeft(_Record, frozen=True, tag="event"):
    """A retained event of the preceding session: its frame as it is sent, and how old it is."""

    seq: int
    frame: bytes
    age_s: float
    ttl_s: float | None = None
    key: str | None = None


class StreamLeft(_Record, frozen=True, tag="stream"):
    """A stream whose socket is handed over too.

    Attributes:
        inode: identifies the socket (fstat(2)); 0 for a stream that is not in chunks, which a
            release before these would go on with as if it was: it closes the socket instead.
        cursor: the last event that the client was sent, ``pending`` included.
        pending: the rest of a write that was cut short.
        max_lag: how many events it may be behind now.
        asked: the id that the client asked for, if it is still to be told of a gap.
        unchunked_inode: identifies the socket of a stream that is not in chunks (HTTP/1.0).

    """

    inode: int
    session: str
    stream_id: str
    peer: str
    cursor: int
    pending: bytes
    opened_s: float
    sent_bytes: int
    sent_events: int
    max_lag: int
    asked: str | None = None
    subject: str | None = None
    expires_at: float | None = None
    unchunked_inode: int | None = None


class NameEnded(_Record, frozen=True, tag="ended"):
    """A session that was closed for good: clients that come back to it are told to stop."""

    name: str
    age_s: float


class Done(_Record, frozen=True, tag="done"):
    """The last record of all: nothing is missing.

    Attributes:
        revoked: subjects whose tokens are denied that were issued by then, in Unix time. In a
            record of their own they would be news that a release before them refuses.
        connections: the sockets, by inode, of clients that may ask for something next. A release
            before these closes them.
        alerts: those that fire, and for how many seconds: they were told.

    """

    revoked: list[tuple[str, float]] = []
    connections: list[int] = []
    alerts: list[tuple[str, float]] = []


Record = Segment | SessionLeft | EventLeft | StreamLeft | NameEnded | Done

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class HandoverError(ValueError):
    """These bytes are no segment, or one of a version that is not known here."""


def pack(
    records: Iterable[Record], *, handover: str, at: float, segment_bytes: int = SEGMENT_BYTES
) -> Iterator[bytearray]:
    """Yield the segments of a handover, each of one record or more; the last is :class:`Done`.

    A record is taken from ``records`` only when there is room for it, so that packed records can
    be forgotten by then.
    """
    remaining = iter(records)
    done = False
    for index in count():
        segment = bytearray(MAGIC)
        _add(segment, Segment(handover, index, at))
        room = segment_bytes
        while room > 0 and not done:
            record = next(remaining, None) or Done()
            done = isinstance(record, Done)
            room -= _add(segment, record)
        yield segment
        if done:
            return


def unpack(segment: bytes | bytearray | memoryview) -> Iterator[Record]:
    """Yield the records of a segment; the first is its :class:`Segment`.

    Raises:
        HandoverError: it is of another version, or damaged.

    """
    view = memoryview(segment)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise HandoverError("it does not begin as a handover of this version does")
    position = len(MAGIC)
    while position < len(view):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(view[start - _LENGTH_BYTES : start])
        if position > len(view):
            raise HandoverError("it ends in the middle of a record")
        try:
            yield _decoder.decode(view[start:position])
        except msgspec.MsgspecError as error:
            raise HandoverError("it has a record that this version does not know") from error


def _add(segment: bytearray, record: Record) -> int:
    encoded = _encoder.encode(record)
    segment += len(encoded).to_bytes(_LENGTH_BYTES)
    segment += encoded
    return len(encoded)
