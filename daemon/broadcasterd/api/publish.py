"""Publishing: what a body may be, and how its events reach the session.

============================ ===========================================================
``application/json``         one event or an array of them, all or nothing
``application/x-ndjson``     a stream of events, one a line, broadcast as they arrive
``text/event-stream``        an upstream SSE stream, broadcast as it arrives
any other ``text/*``         the body is the data; ``?event=`` names its type
============================ ===========================================================

A body that is not a stream is limited by ``server.max_body_bytes``; of a stream, each event is.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Annotated, Protocol, TypeVar

import msgspec
import trio
from msgspec import Meta

from broadcasterd.access.grants import Grant
from broadcasterd.api.auth import token_expired
from broadcasterd.api.request import Head
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import EncodedEvent, Receipt
from broadcasterd.core.event import (
    MAX_EVENT_NAME_CHARS,
    MAX_IDEMPOTENCY_KEY_CHARS,
    MAX_RETRY_MS,
    Event,
)
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import check_block_fits
from broadcasterd.core.wire import Received, StreamDecoder, encode_block
from broadcasterd.errors import (
    BadRequest,
    Draining,
    InvalidEvent,
    Problem,
    ShortOfMemory,
    TooLarge,
    TooMany,
    TooSlow,
)
from broadcasterd.memory.account import Holding

BODY_COPIES = 3
"""While a body is taken in, its bytes are there as sent, as text, and as encoded for the log."""

MAX_ARRAY_EVENTS = 10_000
"""An array is taken apart in memory, and of tiny events that takes fifty times its bytes; a stream
has no such limit."""

EVENT_BYTES = 512
"""What an event of an array takes until it is in the log, beside its data (measured)."""

EVENTS_PER_STEP = 500
"""Events encoded between two checkpoints: some 5 ms."""

_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

# What Event checks, said in the description of the interface too.
EventName = Annotated[
    str,
    Meta(extra_json_schema={"maxLength": MAX_EVENT_NAME_CHARS, "pattern": r"^[^\r\n\u0000]*$"}),
]
IdempotencyKey = Annotated[
    str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY_CHARS})
]
Retry = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_RETRY_MS})]
TimeToLive = Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": 0})]


class Posted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event as JSON. ``data`` is kept as it was written: no number changes its digits."""

    data: msgspec.Raw
    event: EventName | None = None
    idempotency_key: IdempotencyKey | None = None
    retry: Retry | None = None
    ttl: TimeToLive | None = None

    def to_event(self) -> Event:
        """Return the event: a string as it is, anything else as compact JSON."""
        raw = bytes(self.data)
        if raw.lstrip()[:1] == b'"':
            data = msgspec.json.decode(raw, type=str)
        else:
            data = msgspec.json.format(raw, indent=-1).decode()
        return Event(data, self.event, self.retry, self.ttl, self.idempotency_key)


T = TypeVar("T")

_one = msgspec.json.Decoder(Posted)
_many = msgspec.json.Decoder(list[Posted])


@dataclass(slots=True)
class Answer:
    """What the publisher is told so far; grows as a stream goes on."""

    session: str
    accepted: int = 0
    duplicates: int = 0
    first_id: str | None = None
    last_id: str | None = None

    def add(self, receipt: Receipt) -> None:
        """Count in the receipt of what came next."""
        self.accepted += receipt.accepted
        self.duplicates += receipt.duplicates
        self.first_id = self.first_id or receipt.first_id
        self.last_id = receipt.last_id or self.last_id

    def document(self) -> dict[str, object]:
        """Return it as the JSON answer; duplicates are named only where there are any."""
        answer: dict[str, object] = {
            "session": self.session,
            "accepted": self.accepted,
            "first_id": self.first_id,
            "last_id": self.last_id,
        }
        return answer | {"duplicates": self.duplicates} if self.duplicates else answer


async def publish(
    head: Head,
    name: str,
    body: AsyncIterable[bytes],
    *,
    grant: Grant,
    hub: Hub,
    max_body_bytes: int,
) -> Answer:
    """Publish a request's body to a session.

    Args:
        head: the request's head.
        name: the session, already checked.
        body: the request's body in pieces, as they arrive.
        grant: covers this, while it lasts.
        hub: has the session, or opens it.
        max_body_bytes: the limit on a body, and on one event of a stream.

    Raises:
        Problem: the body is refused. Of a stream, the events before the refused one stand; the
            problem says how many those are and, of NDJSON, which line it is.

    """
    if hub.draining:
        raise Draining
    if hub.pressure.refuses_publish():
        raise ShortOfMemory
    media_type, charset = _content_type(head)
    if charset.lower() not in _UTF8:
        msg = f"charset {charset!r} is not supported: send UTF-8"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, msg)
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        msg = "a compressed body is not supported: send it as it is"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, msg)
    if media_type == "application/x-ndjson":
        return await _publish_stream(name, body, _NdjsonEvents(max_body_bytes), grant, hub)
    if media_type == "text/event-stream":
        return await _publish_stream(name, body, _RelayedEvents(max_body_bytes), grant, hub)
    if media_type != "application/json" and not media_type.startswith("text/"):
        msg = (
            f"{media_type or 'no content type'}: expected application/json, "
            "application/x-ndjson, text/event-stream or text/plain"
        )
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, msg)
    _check_rate(hub.quotas.wait_for_events(grant.subject))  # before the body is read
    with hub.bodies.holding() as held:
        whole = await whole_body(
            body, head, grant=grant, hub=hub, max_body_bytes=max_body_bytes, held=held
        )
        if media_type == "application/json":
            drafts = await _encode(_parse_json(whole), hub, held)
        else:
            drafts = [_draft(Event(_decode_text(whole), head.parameter("event")), hub)]
        answer = Answer(name)
        _check_rate(hub.quotas.take_events(grant.subject, len(drafts)))
        answer.add(await hub.open(name, grant.subject).publish(drafts))
    return answer


def _check_rate(wait: float) -> None:
    if wait:
        msg = "the token's subject publishes too much (limits.publish_rate)"
        raise TooMany(msg, retry_after=math.ceil(wait))


def _content_type(head: Head) -> tuple[str, str]:
    message = Message()
    message["content-type"] = head.headers.get("content-type", "")
    charset = message.get_param("charset", "utf-8")
    has_type = "/" in head.headers.get("content-type", "")
    return (message.get_content_type() if has_type else ""), str(charset)


async def _encode(events: Iterable[Event], hub: Hub, held: Holding) -> list[EncodedEvent]:
    """Encode all events or none; let others run in between, for there may be thousands."""
    drafts = []
    for event in events:
        held.take(EVENT_BYTES)
        drafts.append(_draft(event, hub))
        if len(drafts) % EVENTS_PER_STEP == 0:
            await trio.lowlevel.checkpoint()
    return drafts


def _draft(event: Event, hub: Hub) -> EncodedEvent:
    try:
        block = encode_block(event)
    except UnicodeEncodeError as error:
        msg = "data and event have to be text that UTF-8 can encode"
        raise InvalidEvent(msg) from error
    most = hub.settings.sessions.max_history_bytes
    check_block_fits(block, max_bytes=most, key=event.idempotency_key)
    return EncodedEvent(block, event.ttl, event.idempotency_key)


async def whole_body(
    body: AsyncIterable[bytes],
    head: Head,
    *,
    grant: Grant,
    hub: Hub,
    max_body_bytes: int,
    held: Holding,
) -> bytes:
    """Wait for all of a body that is no stream; ``held`` counts it meanwhile.

    Raises:
        TooLarge: it has more than ``max_body_bytes``.
        TooSlow: it is not there within ``limits.body_timeout``.
        Problem: as :func:`_next_piece`, and 503 when the breaker opens.

    """
    too_large = TooLarge(f"the body has more than {max_body_bytes} bytes (server.max_body_bytes)")
    length = head.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) > max_body_bytes:
        raise too_large  # before it is read
    too_slow = TooSlow("the body took too long (limits.body_timeout)")
    deadline = trio.current_time() + hub.settings.limits.body_timeout
    whole = bytearray()
    pieces = aiter(body)
    with hub.interrupts.until_short_of_memory() as wait:
        while piece := await _next_piece(pieces, grant, hub, deadline, too_slow):
            whole += piece
            held.take(BODY_COPIES * len(piece))
            if hub.pressure.refuses_more():
                raise ShortOfMemory
            if len(whole) > max_body_bytes:
                raise too_large
    if wait.cancelled_caught:
        raise ShortOfMemory
    return bytes(whole)


async def _next_piece(
    pieces: AsyncIterator[bytes], grant: Grant, hub: Hub, deadline: float, too_slow: TooSlow
) -> bytes:
    """Wait for the next piece of a body; empty at its end.

    Raises:
        Unavailable: the daemon drains; a stream may last for ever, and this is not waited for.
        TooSlow: ``too_slow``, there was none by the deadline.
        Problem: 401, the grant has expired.

    """
    piece, expired = None, False
    with hub.interrupts.until_drain() as waiting, hub.interrupts.until_expired(grant) as granted:
        waiting.deadline = deadline
        try:
            piece = await anext(pieces, b"")
        finally:
            expired = granted.cancel_called  # also where pieces come too fast to wait for any
    if expired:
        raise token_expired()
    if piece is None:
        raise Draining if hub.draining else too_slow
    return piece


async def _hold_back(events: int, grant: Grant, hub: Hub) -> None:
    """Wait until the grant's subject may publish so many events of a stream.

    Raises:
        Problem: 401 or 503, as where a piece is waited for.

    """
    while wait := hub.quotas.take_events(grant.subject, events):
        with (
            hub.interrupts.until_drain(),
            hub.interrupts.until_short_of_memory() as short,
            hub.interrupts.until_expired(grant) as granted,
        ):
            await trio.sleep(wait)
        if granted.cancelled_caught:
            raise token_expired()
        if short.cancelled_caught:
            raise ShortOfMemory
        if hub.draining:
            raise Draining


def _decode_text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        msg = f"the body is not UTF-8 (byte {error.start})"
        raise BadRequest(msg) from error


def _parse_json(body: bytes) -> Iterator[Event]:
    """Parse one event or an array of them."""
    _decode_text(body)  # the data of an event is not looked into by the JSON decoder
    if body.lstrip()[:1] != b"[":
        yield _decode(body, _one).to_event()
        return
    posts: list[Posted] = _decode(body, _many)
    if len(posts) > MAX_ARRAY_EVENTS:
        msg = f"an array has at most {MAX_ARRAY_EVENTS} events: send more as application/x-ndjson"
        raise TooLarge(msg)
    for index, posted in enumerate(posts):
        try:
            yield posted.to_event()
        except Problem as problem:
            problem.extra["index"] = index
            raise


def _decode(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidEvent(str(error)) from error
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise BadRequest(msg) from error


class _Events(Protocol):
    """Makes events of a stream that arrives in pieces."""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that a piece completes."""

    def finish(self) -> Iterator[Event]:
        """Yield what the end of the stream completes."""

    def where(self) -> dict[str, object]:
        """Say which part of the stream was being read."""

    @property
    def kept_bytes(self) -> int:
        """What is kept of an event that is not complete."""


class _NdjsonEvents:
    """One event a line; empty lines mean nothing. Lines are counted from 1."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()
        self._line = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._keep(line)
            yield from self.finish()
        self._keep(rest)

    def finish(self) -> Iterator[Event]:
        line = bytes(self._rest)
        self._rest.clear()
        self._line += 1
        if line.strip():
            _decode_text(line)
            yield _decode(line, _one).to_event()

    def where(self) -> dict[str, object]:
        return {"line": self._line}

    @property
    def kept_bytes(self) -> int:
        return len(self._rest)

    def _keep(self, part: bytes) -> None:
        self._rest += part
        if len(self._rest) > self._max_line_bytes:
            self._line += 1
            msg = f"a line has at most {self._max_line_bytes} bytes (server.max_body_bytes)"
            raise TooLarge(msg)


class _RelayedEvents:
    """The events of another SSE stream. Their ids are its own affair: ours are new."""

    def __init__(self, max_event_chars: int) -> None:
        self._decoder = StreamDecoder(max_event_chars=max_event_chars)
        self._events = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        for received in self._decoder.feed(piece):
            yield self._relayed(received)
            self._events += 1  # not before: it may be this one that is refused

    def finish(self) -> Iterator[Event]:
        return iter(())  # an event without its blank line is none, by the standard

    def where(self) -> dict[str, object]:
        return {"event": self._events + 1}

    @property
    def kept_bytes(self) -> int:
        return self._decoder.kept_chars

    def _relayed(self, received: Received) -> Event:
        retry = received.retry if received.retry is None else min(received.retry, MAX_RETRY_MS)
        return Event(received.data, received.event, retry)


async def _publish_stream(
    name: str, body: AsyncIterable[bytes], events: _Events, grant: Grant, hub: Hub
) -> Answer:
    answer = Answer(name)
    session = hub.open(name, grant.subject)
    idle = hub.settings.limits.stream_idle_timeout
    too_slow = TooSlow("nothing came for too long (limits.stream_idle_timeout)")

    async def accept(some: Iterator[Event]) -> None:
        nonlocal session
        drafts, problem = await _drafts(events, some, hub)
        if drafts:
            await _hold_back(len(drafts), grant, hub)
        if hub.pressure.refuses_more():
            raise ShortOfMemory
        if session.ending in {EndReason.SESSION_EXPIRED, EndReason.MEMORY}:
            # It was forgotten, not closed, while this one was silent.
            session = hub.open(name, grant.subject)
        if drafts:
            answer.add(await session.publish(drafts))
        if problem is not None:
            raise problem

    try:
        pieces = aiter(body)
        with hub.bodies.holding() as held:
            while piece := await _next_piece(
                pieces, grant, hub, trio.current_time() + idle, too_slow
            ):
                await accept(events.feed(piece))
                held.hold(events.kept_bytes)
            await accept(events.finish())
    except Problem as problem:
        problem.extra |= answer.document()
        raise
    return answer


async def _drafts(
    source: _Events, events: Iterable[Event], hub: Hub
) -> tuple[list[EncodedEvent], Problem | None]:
    """Encode events up to the first that is refused; return them, and why."""
    drafts: list[EncodedEvent] = []
    try:
        for event in events:
            drafts.append(_draft(event, hub))
            if len(drafts) % EVENTS_PER_STEP == 0:
                await trio.lowlevel.checkpoint()
    except Problem as problem:
        problem.extra |= source.where()
        return drafts, problem
    return drafts, None
