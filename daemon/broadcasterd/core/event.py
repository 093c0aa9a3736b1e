"""The event that a publisher sends, checked on construction."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from broadcasterd.errors import InvalidEvent

OWN_PREFIX = "broadcaster."
"""The names of the daemon's own events begin with it, and no others: what is ours cannot be forged,
and an application may call its events ``end`` or ``gap``."""

GAP = f"{OWN_PREFIX}gap"
END = f"{OWN_PREFIX}end"

MAX_EVENT_NAME_CHARS = 256
"""An event's type is a word, not a payload; it is repeated in every frame."""

MAX_IDEMPOTENCY_KEY_CHARS = 256
"""A UUID or a hash fits many times over; each retained event keeps its key."""

MAX_RETRY_MS = 24 * 60 * 60 * 1000
"""A day. A longer time would mean never, and ``event: broadcaster.end`` says that."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event to broadcast: a text, its type, and how long it lives.

    Attributes:
        data: the payload, any text. Line breaks become several ``data:`` lines.
        event: the type that browsers dispatch on; ``None`` is ``message``.
        retry: the reconnection time to tell clients, in milliseconds.
        ttl: seconds for which it may be replayed; ``None`` is the session's ``event_ttl``.
        idempotency_key: makes this a duplicate if a retained event has the same key.

    Raises:
        InvalidEvent: a field is out of bounds, or ``event`` holds CR, LF or NUL, or is a name that
            only the daemon's own events have.

    """

    data: str
    event: str | None = None
    retry: int | None = None
    ttl: float | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        if self.event is not None:
            if "\r" in self.event or "\n" in self.event or "\0" in self.event:
                msg = "event: a type cannot hold CR, LF or NUL"
                raise InvalidEvent(msg, status=HTTPStatus.BAD_REQUEST)
            if len(self.event) > MAX_EVENT_NAME_CHARS:
                msg = f"event: a type has at most {MAX_EVENT_NAME_CHARS} characters"
                raise InvalidEvent(msg)
            if self.event.startswith(OWN_PREFIX):
                msg = f"event: types that begin with {OWN_PREFIX} are the daemon's own"
                raise InvalidEvent(msg)
        if self.retry is not None and not 0 <= self.retry <= MAX_RETRY_MS:
            msg = f"retry: expected 0 to {MAX_RETRY_MS} milliseconds"
            raise InvalidEvent(msg)
        if self.ttl is not None and not self.ttl > 0:
            msg = "ttl: expected a number of seconds above 0"
            raise InvalidEvent(msg)
        key = self.idempotency_key
        if key is not None and not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARS:
            msg = f"idempotency_key: expected 1 to {MAX_IDEMPOTENCY_KEY_CHARS} characters"
            raise InvalidEvent(msg)


class EncodedEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event as a session takes it, and as an engine keeps it: encoded as a block."""

    block: bytes
    ttl: float | None = None
    key: str | None = None
