"""Pages: a session's log as JSON, for clients that cannot stream. They may wait for news.

A long page is read from the log piece by piece, as its reader takes it. Where the log is shortened
meanwhile, the page ends there, and the next one tells the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import trio

from broadcasterd.access.grants import Grant
from broadcasterd.api.answer import PIECE_BYTES
from broadcasterd.api.auth import token_expired
from broadcasterd.api.fields import prefers
from broadcasterd.api.formats import JSON_TYPE, STREAM_TYPE
from broadcasterd.api.request import Head
from broadcasterd.api.room import NoRoom, find_room
from broadcasterd.api.subscribe import start_of
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.response_subscriber import ResponseSubscriber
from broadcasterd.broadcast.session import Session
from broadcasterd.core.decoder import read_frame
from broadcasterd.core.position import ById
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Gap, Position
from broadcasterd.core.segment import Entry
from broadcasterd.core.wire import HEARTBEAT
from broadcasterd.errors import SessionEnded
from broadcasterd.memory.holdings import REQUEST_BYTES

MAX_PAGE_EVENTS = 1000
MAX_PAGE_BYTES = 1024 * 1024
"""A client has it in memory as a whole: its events, and so its bytes, are bounded."""

MAX_WAIT_S = 30
"""Proxies cut an answer that takes a minute; half of that is safe everywhere."""


def wants_page(head: Head) -> bool:
    """Whether the request asks for JSON rather than a stream."""
    accept = head.headers.get("accept")
    return accept is not None and prefers(accept, JSON_TYPE, STREAM_TYPE)


async def page(
    head: Head,
    name: str,
    grant: Grant,
    hub: Hub,
    until_gone: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, object] | Iterator[bytes] | None:
    """Return a page of a session's log, oldest first; ``None`` if the session was closed.

    A long one comes as pieces of its JSON.

    ``limit`` bounds it; ``next`` is the id to go on from, always; ``wait`` holds the answer back
    for up to so many seconds until there is an event, or the client says that it will send no
    more. ``gap`` is there when events were lost.

    Raises:
        BadRequest: a query field has no known form.
        Unavailable: a bad moment.
        TooMany: the client or the subject has used up its quota.
        Problem: 401, the grant expired while the answer was held back.

    """
    limit = head.number("limit", default=100, low=1, high=MAX_PAGE_EVENTS)
    wait = head.number("wait", default=0, low=0, high=MAX_WAIT_S)
    start = start_of(head)
    if not wait and _is_unknown(name, hub):  # a mere look opens no session
        beginning = hub.beginning_of(name)
        gap = None
        if isinstance(start, ById) and start.event_id != beginning:
            gap = Gap(start.event_id, None)
        return _page(name, [], next_id=beginning, gap=gap)
    session = await _find(head, name, grant, hub)
    if session is None:
        return None
    position = session.resolve(start)
    if wait and position.gap is None and not session.log.since(position.cursor, max_bytes=0):
        with until_gone():
            await _wait_for_news(head, session, grant, hub, wait)
        if session.ending is EndReason.SESSION_CLOSED:
            return None
        if hub.sessions.get(name) is not session:  # lost meanwhile: the next page tells the gap
            return _page(name, [], next_id=session.log.id_of(position.cursor), gap=None)
        position = session.log.renewed(position)
    rest = Rest(session, hub.clock.unix_now, position.cursor, limit)
    events = rest.take()
    if rest.has_more:
        return _pieces(rest, events, position.gap)
    return _page(name, events, next_id=rest.next_id, gap=position.gap)


def _is_unknown(name: str, hub: Hub) -> bool:
    return name not in hub.sessions and not hub.was_ended(name) and not hub.engine.is_shared


async def _find(head: Head, name: str, grant: Grant, hub: Hub) -> Session | None:
    """Return a session with all that there is; ``None`` if it was closed."""
    if hub.was_ended(name):
        return None
    session = find_room(head, name, grant, hub)
    if isinstance(session, NoRoom):
        raise session.problem
    try:
        await session.ready()
    except SessionEnded:
        return None
    return session


class Rest:
    """The events that are still to come on a page.

    Args:
        session: has the log.
        unix_now: tells when its events were accepted.
        cursor: the event that was taken last.
        limit: how many more may follow.

    """

    def __init__(
        self, session: Session, unix_now: Callable[[], float], cursor: int, limit: int
    ) -> None:
        self._session = session
        self._unix_now = unix_now
        self._cursor = cursor
        self._limit = limit
        self._room = MAX_PAGE_BYTES

    @property
    def name(self) -> str:
        """The session's name."""
        return self._session.name

    @property
    def has_more(self) -> bool:
        """Whether the page goes on: no event is missing, and it may have one more."""
        log = self._session.log
        has_room = self._limit > 0 and self._room > 0
        return has_room and self._cursor >= log.floor and self._cursor < log.last

    @property
    def next_id(self) -> str:
        """The id from which the next page goes on."""
        return self._session.log.id_of(self._cursor)

    def take(self) -> list[dict[str, object]]:
        """Take the next events, of some ``PIECE_BYTES``; none where there are no more."""
        size = min(PIECE_BYTES, self._room)
        entries = self._session.log.since(self._cursor, max_bytes=size, max_events=self._limit)
        if not entries:
            self._limit = 0
            return []
        self._cursor = entries[-1].seq
        self._limit -= len(entries)
        self._room -= sum(len(entry.frame) for entry in entries)
        behind = self._unix_now() - self._session.now()
        return [_as_json(entry, at=behind + entry.appended_at) for entry in entries]


def _pieces(rest: Rest, events: list[dict[str, object]], gap: Gap | None) -> Iterator[bytes]:
    """Yield a page whose first events were taken."""
    before = _page(rest.name, [], next_id="", gap=gap)
    told = {name: before[name] for name in before if name not in {"events", "next"}}
    piece = msgspec.json.encode(told)[:-1] + b',"events":[' + _joined(events)
    del events
    while True:
        yield piece
        if not rest.has_more:
            break
        more = rest.take()
        piece = b"," + _joined(more) if more else b""
        del more
    yield b'],"next":' + msgspec.json.encode(rest.next_id) + b"}"


def _joined(events: list[dict[str, object]]) -> bytes:
    return msgspec.json.encode(events)[1:-1]


async def _wait_for_news(head: Head, session: Session, grant: Grant, hub: Hub, wait: float) -> None:
    with (
        trio.move_on_after(wait) as waiting,
        hub.interrupts.until_expired(grant) as granted,
        _held(waiting, hub),
    ):
        waiter = ResponseSubscriber(
            session,
            waiting,
            stream_id=hub.subscribers.new_id(),
            peer=head.peer,
            position=Position(session.log.last),
            subject=grant.subject,
            expires_at=hub.clock.moment(grant.expires_at),
        )
        try:
            session.attach(waiter)
            while await waiter.next_bytes() == HEARTBEAT:
                pass
        finally:
            waiter.close(EndReason.CLIENT_GONE)
    if granted.cancel_called:  # the waiter may have been ended first
        raise token_expired()


@dataclass(eq=False, slots=True)
class LongPoll:
    """A page that waits: of no use while there is no news.

    Attributes:
        wait: the wait, whose end is the answer.
        since: when it began.

    """

    wait: trio.CancelScope
    since: float

    @property
    def held_bytes(self) -> int:
        """The bytes that it holds."""
        return REQUEST_BYTES

    def unused_since(self, _now: float) -> float:
        """Return when it began."""
        return self.since

    def let_go(self) -> None:
        """Have it answered with what there is."""
        self.wait.cancel()


@contextmanager
def _held(wait: trio.CancelScope, hub: Hub) -> Iterator[None]:
    """Count a wait, and end it early where memory is short."""
    poll = LongPoll(wait, hub.clock.now())
    hub.holdings.add(poll)
    try:
        with hub.holdings.holding() as held:
            held.hold(REQUEST_BYTES)
            yield
    finally:
        hub.holdings.discard(poll)


def _page(
    name: str, events: list[dict[str, object]], *, next_id: str, gap: Gap | None
) -> dict[str, object]:
    answer: dict[str, object] = {"session": name, "events": events, "next": next_id}
    return answer | {"gap": {"asked": gap.asked, "oldest": gap.oldest}} if gap else answer


def _as_json(entry: Entry, *, at: float) -> dict[str, object]:
    """Return an event as a client would see it on the stream, and when it was accepted."""
    event = read_frame(entry.frame)
    return {
        "id": event.last_event_id,
        "event": event.event,
        "data": event.data,
        "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
    }
