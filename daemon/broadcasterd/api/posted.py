"""Events as JSON: one, or an array of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from broadcasterd.api.json_body import WITH_HALVES, Halves, Reader, check_utf8, without_bom
from broadcasterd.core.event import (
    MAX_EVENT_NAME_CHARS,
    MAX_IDEMPOTENCY_KEY_CHARS,
    MAX_RETRY_MS,
    OWN_PREFIX,
    Event,
)
from broadcasterd.errors import InvalidEvent, Problem, TooLarge

MAX_ARRAY_EVENTS = 10_000
"""An array is taken apart in memory: if its events are tiny, that takes fifty times its bytes. A
stream has no such limit."""

# The checks of Event, as the description of the interface says them.
_NAMES = {
    "maxLength": MAX_EVENT_NAME_CHARS,
    "pattern": rf"^(?!{re.escape(OWN_PREFIX)})[^\r\n\u0000]*$",
}
EventName = Annotated[str, Meta(extra_json_schema=_NAMES)]
IdempotencyKey = Annotated[
    str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY_CHARS})
]
Retry = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_RETRY_MS})]
TimeToLive = Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": 0})]


class Posted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An event as JSON. ``data`` is kept as it was written: no number changes its digits."""

    data: msgspec.Raw
    event: EventName | None = None
    idempotency_key: IdempotencyKey | None = None
    retry: Retry | None = None
    ttl: TimeToLive | None = None

    def to_event(self, halves: Halves | None = None) -> Event:
        """Return the event: a string as it is, anything else as compact JSON.

        Raises:
            InvalidEvent: it is not valid, or a string of it is with ``halves``.

        """
        raw = bytes(self.data)
        is_text = raw.startswith(b'"')
        data = _text.decode(raw) if is_text else msgspec.json.format(raw, indent=-1).decode()
        if halves is not None:
            strings = {"event": self.event, "idempotency_key": self.idempotency_key}
            _check_whole({"data": data, **strings} if is_text else strings, halves)
            data = data if is_text else halves.restored(data)
        return Event(data, self.event, self.retry, self.ttl, self.idempotency_key)


def _check_whole(strings: Mapping[str, str | None], halves: Halves) -> None:
    for name, value in strings.items():
        if value is not None and halves.are_in(value):
            raise InvalidEvent(f"{name}: a string cannot be sent with {WITH_HALVES}")


_text = msgspec.json.Decoder(str)
_posted = Reader(
    Posted,
    "an event",
    {
        "data": "any JSON",
        "event": "a string",
        "idempotency_key": "a string",
        "retry": "a whole number of milliseconds",
        "ttl": "a number of seconds",
    },
)


def parse_json(body: bytes) -> Iterable[Event]:
    """Parse one event or an array of them, whose events are made one by one.

    Raises:
        BadRequest: it is not JSON.
        InvalidEvent: an event is not valid; in an array, ``index`` says which.
        TooLarge: there are more than ``MAX_ARRAY_EVENTS``.

    """
    check_utf8(body)  # the JSON decoder does not look into the data of an event
    body = without_bom(body)
    if body.lstrip()[:1] != b"[":
        return (parse_one(body),)
    posts, halves = _posted.many(body)
    if len(posts) > MAX_ARRAY_EVENTS:
        msg = f"an array has at most {MAX_ARRAY_EVENTS} events: send more as application/x-ndjson"
        raise TooLarge(msg)
    return _events_of(posts, halves)


def parse_one(text: bytes) -> Event:
    """Parse an event of JSON that is UTF-8, and has no byte order mark.

    Raises:
        BadRequest: it is not JSON.
        InvalidEvent: it is not valid.

    """
    posted, halves = _posted.one(text)
    return posted.to_event(halves)


def _events_of(posts: list[Posted], halves: Halves | None) -> Iterator[Event]:
    for index, posted in enumerate(posts):
        try:
            yield posted.to_event(halves)
        except Problem as problem:
            problem.extra["index"] = index
            raise
