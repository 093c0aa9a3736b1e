"""Publishing: a request's body becomes events, and the session takes them.

``server.max_body_bytes`` limits a body that is not a stream; in a stream, it limits each event.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter

import trio

from broadcasterd.access.grants import Grant
from broadcasterd.access.quotas import Wait
from broadcasterd.api.auth import token_expired
from broadcasterd.api.bodies import EVENT_BYTES, next_piece, whole_body
from broadcasterd.api.formats import (
    JSON_TYPE,
    EventStream,
    encode,
    media_type_of,
    parse_text,
    stream_of,
)
from broadcasterd.api.posted import parse_json
from broadcasterd.api.request import Head
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.publication import Receipt
from broadcasterd.broadcast.slices import for_each
from broadcasterd.broadcast.upload import Upload
from broadcasterd.core.event import EncodedEvent, Event
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import Draining, Problem, ShortOfMemory, TooMany, TooSlow
from broadcasterd.memory.account import Holding
from broadcasterd.memory.holdings import REQUEST_BYTES

DRAFT_BYTES = 112
"""Memory that an event of a stream takes beside its data, while it is held back (measured)."""

ENCODING_SLICE = 500
"""Events encoded between two checkpoints: some 5 ms."""

PARSING_SLICE = 8 * 1024
"""Bytes of a stream that are taken apart between two checkpoints: of line breaks, some 3 ms."""


@dataclass(slots=True)
class Published:
    """The answer to the publisher so far; it grows as a stream goes on.

    ``subscribers`` are the streams, and the pages that wait, that are open on the session now.
    ``remarks`` are further members, which the body gave cause to.
    """

    session: str
    accepted: int = 0
    duplicates: int = 0
    first_id: str | None = None
    last_id: str | None = None
    subscribers: int = 0
    remarks: Mapping[str, object] = field(default_factory=dict)

    def add(self, receipt: Receipt) -> None:
        """Add the receipt of the next events."""
        self.accepted += receipt.accepted
        self.duplicates += receipt.duplicates
        self.first_id = self.first_id or receipt.first_id
        self.last_id = receipt.last_id or self.last_id

    def document(self) -> dict[str, object]:
        """Return the JSON answer; duplicates are named only where there are any."""
        answer: dict[str, object] = {
            "session": self.session,
            "accepted": self.accepted,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "subscribers": self.subscribers,
        }
        if self.duplicates:
            answer["duplicates"] = self.duplicates
        return {**answer, **self.remarks} if self.remarks else answer


async def publish(
    head: Head, name: str, body: AsyncIterable[bytes], *, grant: Grant, hub: Hub
) -> Published:
    """Publish a request's body to a session.

    Args:
        head: the request's head.
        name: the session, already checked.
        body: the request's body in pieces, as they arrive.
        grant: covers the publication, while it lasts.
        hub: has the session, or opens it.

    Raises:
        Problem: the body is refused. In a stream, the events before the refused one stand; the
            problem says how many they are and, in NDJSON, the line of the refused one.

    """
    if hub.draining:
        raise Draining
    if hub.pressure.refuses_publish():
        raise ShortOfMemory
    media_type = media_type_of(head)
    stream = stream_of(media_type, head, max_event_bytes=hub.settings.server.max_body_bytes)
    if stream is not None:
        return await _publish_stream(name, body, stream, grant, hub)
    _check_rate(hub.quotas.wait(grant.subject))  # before the body is read
    with Upload(hub.bodies, hub.quotas, grant.subject) as held:
        whole = await whole_body(
            body,
            head,
            grant=grant,
            hub=hub,
            max_body_bytes=hub.settings.server.max_body_bytes,
            held=held,
        )
        began = perf_counter()
        parsed = parse_json(whole) if media_type == JSON_TYPE else (parse_text(whole, head),)
        events = await _encode_all(parsed, grant, hub, held)
        _check_rate(_take(events, grant, hub))
        published = Published(name)
        session = hub.open(name, grant.subject)
        published.add(await session.publish(events))
        hub.counts.published.record(perf_counter() - began)
        published.subscribers = session.streams
    return published


def _take(events: Sequence[EncodedEvent], grant: Grant, hub: Hub) -> Wait | None:
    """Let the grant's subject publish events, or return its wait."""
    if grant.subject is None:
        return None  # nobody's publishing is limited
    size = sum([len(event.block) for event in events])
    return hub.quotas.take(grant.subject, events=len(events), size=size)


def _check_rate(wait: Wait | None) -> None:
    if wait is not None:
        msg = f"the token's subject publishes too much (limits.{wait.setting})"
        raise TooMany(msg, retry_after=wait.seconds)


async def _encode_all(
    events: Iterable[Event], grant: Grant, hub: Hub, held: Holding
) -> list[EncodedEvent]:
    """Encode all events or none; let other tasks run in between, for there may be thousands."""
    encoded: list[EncodedEvent] = []
    limits = hub.settings.sessions
    if isinstance(events, tuple):  # of one, as nearly always, which is counted with the body
        return [encode(event, limits, grant.subject) for event in events]

    def encode_one(event: Event) -> None:
        held.take(EVENT_BYTES)
        encoded.append(encode(event, limits, grant.subject))

    await for_each(events, encode_one, slice_=ENCODING_SLICE)
    return encoded


async def _publish_stream(
    name: str, body: AsyncIterable[bytes], stream: EventStream, grant: Grant, hub: Hub
) -> Published:
    published = Published(name)
    session = hub.open(name, grant.subject)
    idle = hub.settings.limits.stream_idle_timeout
    too_slow = TooSlow("nothing came for too long (limits.stream_idle_timeout)")

    async def accept(some: Iterator[Event], held: Holding) -> None:
        nonlocal session
        # Of a piece, however large, no more at once: what is not encoded yet takes little.
        most = min(hub.settings.limits.publish_burst, ENCODING_SLICE)
        is_last = False
        while not is_last:
            events, problem = _encode_some(stream, islice(some, most), grant, hub)
            is_last = len(events) < most
            await _hold_back(events, grant, hub, held)
            if hub.pressure.refuses_more():
                raise ShortOfMemory
            if session.ending in {EndReason.SESSION_EXPIRED, EndReason.MEMORY}:
                # It was forgotten, not closed, while this one was silent.
                session = hub.open(name, grant.subject)
            if events:
                began = perf_counter()
                published.add(await session.publish(events))
                hub.counts.published.record(perf_counter() - began)
            else:
                await trio.lowlevel.checkpoint()  # however many parts have none
            if problem is not None:
                raise problem

    try:
        pieces = aiter(body)
        with (
            hub.holdings.holding() as request,
            Upload(hub.bodies, hub.quotas, grant.subject) as held,
        ):
            request.hold(REQUEST_BYTES)
            while piece := await next_piece(
                pieces, grant, hub, trio.current_time() + idle, too_slow
            ):
                held.take(len(piece))
                for at in range(0, len(piece), PARSING_SLICE):
                    await accept(stream.feed(piece[at : at + PARSING_SLICE]), held)
                del piece  # while the next is waited for
                held.hold(stream.kept_bytes)
            await accept(stream.finish(), held)
    except Problem as problem:
        published.subscribers = session.streams
        problem.extra |= published.document()
        raise
    published.subscribers = session.streams
    published.remarks = stream.remarks()
    return published


def _encode_some(
    stream: EventStream, events: Iterable[Event], grant: Grant, hub: Hub
) -> tuple[list[EncodedEvent], Problem | None]:
    """Encode events up to the first that is refused; return them, and its problem."""
    encoded: list[EncodedEvent] = []
    limits = hub.settings.sessions
    try:
        for event in events:
            encoded.append(encode(event, limits, grant.subject))  # noqa: PERF401 (it may raise)
    except Problem as problem:
        problem.extra |= stream.where()
        return encoded, problem
    return encoded, None


async def _hold_back(events: Sequence[EncodedEvent], grant: Grant, hub: Hub, held: Holding) -> None:
    """Wait until the grant's subject may publish these events of a stream; ``held`` counts them.

    Raises:
        Problem: 401 or 503, as in the wait for a piece.

    """
    while events and (wait := _take(events, grant, hub)) is not None:
        before = held.bytes
        held.take(sum(DRAFT_BYTES + len(event.block) for event in events))
        with (
            hub.interrupts.until_drain(),
            hub.interrupts.until_short_of_memory() as short,
            hub.interrupts.until_expired(grant) as granted,
        ):
            await trio.sleep(wait.seconds)
        held.hold(before)
        if granted.cancelled_caught:
            raise token_expired()
        if short.cancelled_caught:
            raise ShortOfMemory
        if hub.draining:
            raise Draining
