"""What is in Redis, and what is said on its channels: names of keys, and forms of events."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import msgspec

from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.port import KeptEvent

SLOTS = 16384
"""Of a Cluster: a key is in the slot that the text in its braces names."""

ENDED = b"!ended"
REPLACED = b"!replaced"
"""Said on a session's channel, where it else says which events came."""

_encode = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(EncodedEvent).decode
_decode_events = msgspec.msgpack.Decoder(list[EncodedEvent]).decode

MOVED = b"!moved"
"""Said by us of a channel that is at another server now."""

MICROSECONDS = 1_000_000


class Keys(msgspec.Struct, frozen=True, gc=False):
    """The keys of one session, all in one slot; its channel has the name of the first."""

    session: bytes
    stream: bytes
    keys: bytes
    nodes: bytes

    @classmethod
    def of(cls, prefix: str, name: str) -> Keys:
        """Return those of a session by its name, which holds no brace."""
        session = f"{prefix}:{{{name}}}".encode()
        return cls(session, session + b":events", session + b":keys", session + b":nodes")


def slot_of(name: str) -> int:
    """Return the slot of a session's keys, or of a key without braces.

    Redis Cluster specification: CRC16, XMODEM.
    """
    return binascii.crc_hqx(name.encode(), 0) % SLOTS


def pack_text(text: str) -> bytes:
    """Return a text that may be none of UTF-8: an admin can name any subject."""
    return text.encode("utf-8", "surrogatepass")


def unpack_text(packed: bytes) -> str:
    """Return what was packed.

    Raises:
        ValueError: it is none of ours.

    """
    return packed.decode("utf-8", "surrogatepass")


def encode(event: EncodedEvent) -> bytes:
    """Return an event as it is kept and told."""
    return _encode(event)


class Said(msgspec.Struct, frozen=True, gc=False):
    """Events that a channel told of; they have one time, in microseconds."""

    incarnation: str
    first: int
    at: bytes
    events: Sequence[EncodedEvent]

    @property
    def last(self) -> int:
        """The number of the last."""
        return self.first + len(self.events) - 1

    def kept(self, after: int) -> list[KeptEvent]:
        """Return the events whose numbers are above one."""
        at = int(self.at) / MICROSECONDS
        return [
            KeptEvent(seq, at, event)
            for seq, event in enumerate(self.events, start=self.first)
            if seq > after
        ]


def read_said(data: bytes) -> Said:
    """Return what a channel said.

    Raises:
        ValueError: it is none of ours.

    """
    incarnation, first, at, count, packed = data.split(b" ", 4)
    if count == b"1":
        events: Sequence[EncodedEvent] = (_decode_event(packed),)
    else:
        events = _decode_events(b"\xdd" + int(count).to_bytes(4) + packed)
    return Said(incarnation.decode(), int(first), at, events)


def read_entry(entry_id: bytes, event: bytes) -> KeptEvent:
    """Return an event that a stream retains.

    Raises:
        ValueError: it is none of ours.

    """
    seq, _, at = entry_id.partition(b"-")
    return KeptEvent(int(seq), int(at) / MICROSECONDS, _decode_event(event))
