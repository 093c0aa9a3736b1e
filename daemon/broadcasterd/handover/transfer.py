"""Leaving sessions and streams to the next process, and taking them up: a restart nobody sees.

Leaving goes session by session, each in one step, so that nothing is written to a stream after its
place in the log was noted. What was left is let go of at once: at no time is there room needed for
a second copy of it all. The sockets stay open all the time, in the hands of a :class:`Keeper`.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isinf
from typing import Protocol

from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.slices import for_each
from broadcasterd.broadcast.socket_subscriber import Progress, SocketSubscriber
from broadcasterd.broadcast.unchunked_subscriber import UnchunkedSubscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.segment import Segment as LogSegment
from broadcasterd.engine.port import HandedOver
from broadcasterd.handover import sealed
from broadcasterd.handover.format import (
    Done,
    EventLeft,
    HandoverError,
    NameEnded,
    Record,
    Segment,
    SessionLeft,
    StreamLeft,
    pack,
    unpack,
)


class Keeper(Protocol):
    """Keeps segments and sockets from one process to the next."""

    async def keep_segment(self, index: int, segment: bytearray) -> None:
        """Take a segment.

        Raises:
            OSError: it cannot.

        """

    async def keep_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Take sockets; the caller closes its own descriptors of them.

        Raises:
            OSError: it cannot.

        """


Alerts = Sequence[tuple[str, float]]
"""The alerts that fire, and for how many seconds."""


@dataclass(slots=True)
class Moved:
    """How much was handed over; ``seconds`` passed between leaving and taking up.

    ``connections`` are those on which no request was under way. Taken up, ``alerts`` have fired for
    those seconds, too.
    """

    sessions: int = 0
    events: int = 0
    streams: int = 0
    connections: int = 0
    lost_streams: int = 0
    seconds: float = 0.0
    alerts: Alerts = ()


async def hand_over(
    hub: Hub, keeper: Keeper, idle: Sequence[socket.socket] = (), alerts: Alerts = ()
) -> Moved:
    """Leave everything to the next process. The hub is empty afterwards.

    Args:
        hub: has the sessions and streams.
        keeper: takes them.
        idle: connections on which no request is under way; they are left, too.
        alerts: those that fire.

    Raises:
        OSError: the keeper failed. The streams and connections that it does not have are closed;
            their clients come back by themselves.

    """
    moved = Moved(alerts=alerts)
    taken: list[socket.socket] = []
    rest = [*idle]
    records = _leaving(hub, taken, rest, moved)
    segments = pack(records, handover=secrets.token_hex(8), at=hub.clock.unix_now())
    try:
        for index, segment in enumerate(segments):
            await keeper.keep_segment(index, segment)
            await keeper.keep_sockets(taken)
            while taken:
                taken.pop().close()
        hub.engine.note(HandedOver(is_so=True))
    finally:
        for sock in (*taken, *rest):
            sock.close()
    return moved


def _leaving(
    hub: Hub, taken: list[socket.socket], idle: list[socket.socket], moved: Moved
) -> Iterator[Record]:
    """Yield the hub's sessions and streams, and empty it; all sockets go to ``taken``."""
    now = hub.clock.now()
    for name, ended_at in hub.absent.ended():
        yield NameEnded(name, now - ended_at)
    while hub.sessions:
        session = next(iter(hub.sessions.values()))
        log = session.log
        moved.events += len(log)
        segments = list(log.segments)
        whole = sealed.movable(segments)
        streams = [
            _leave_stream(subscriber, session, hub, taken)
            for subscriber in tuple(session.subscribers)
            if isinstance(subscriber, SocketSubscriber) and subscriber.can_move
        ]
        left = _describe(session, whole)
        hub.drop(session, EndReason.DRAINING)  # subscribers that stayed are told so
        moved.sessions += 1
        moved.streams += len(streams)
        yield left
        now = hub.clock.now()
        for segment in segments[len(whole) :]:
            for entry in map(segment.entry, segment.following(segment.head)):
                age_s = now - entry.appended_at
                yield EventLeft(entry.seq, entry.frame, age_s, entry.ttl, entry.key)
        yield from streams
    inodes = [*map(_inode, idle)]
    moved.connections = len(idle)
    taken += idle
    idle.clear()
    yield Done([*hub.revocations], inodes, [*moved.alerts])


def _describe(session: Session, whole: Sequence[LogSegment]) -> SessionLeft:
    now, floor, floor_at = session.now(), session.log.floor, session.log.floor_at
    floor_age_s = None if isinf(floor_at) else now - floor_at
    return SessionLeft(
        name=session.name,
        incarnation=session.log.incarnation,
        floor=whole[-1].last if whole else floor,
        last=session.log.last,
        opened_s=now - session.opened_at,
        active_s=now - session.active_at,
        published_s=now - session.published_at,
        subject=session.subject,
        floor_age_s=now - whole[-1].last_at if whole else floor_age_s,
        sealed=[sealed.leave(segment, now=now) for segment in whole],
        floor_below=floor if whole else None,
        floor_below_age_s=floor_age_s if whole else None,
    )


def _leave_stream(
    stream: SocketSubscriber, session: Session, hub: Hub, taken: list[socket.socket]
) -> StreamLeft:
    sock, progress = stream.detach()
    session.let_go(stream)
    taken.append(sock)
    is_chunked = not isinstance(stream, UnchunkedSubscriber)
    return StreamLeft(
        inode=_inode(sock) if is_chunked else 0,
        session=session.name,
        stream_id=stream.stream_id,
        peer=stream.peer,
        cursor=progress.cursor,
        pending=progress.pending,
        opened_s=progress.opened_s,
        sent_bytes=progress.sent_bytes,
        sent_events=progress.sent_events,
        max_lag=progress.max_lag,
        asked=progress.asked,
        subject=stream.subject,
        expires_at=hub.clock.unix_time(stream.expires_at),
        unchunked_inode=None if is_chunked else _inode(sock),
    )


def _inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


class Left(Protocol):
    """The segments and sockets that another process left."""

    @property
    def segments(self) -> int:
        """How many segments there are."""

    async def take_segment(self, index: int) -> bytes:
        """Return a segment; empty if it is missing."""

    async def take_sockets(self) -> list[socket.socket]:
        """Return all sockets, non-blocking."""


class Connections(Protocol):
    """Takes in the connections that another process accepted."""

    def adopt(self, sock: socket.socket) -> socket.socket:
        """Make a stream's connection one of this process."""

    def resume(self, sock: socket.socket) -> None:
        """Wait for the next request on a connection, once requests are served."""


async def restore(hub: Hub, left: Left, connections: Connections) -> Moved:
    """Go on with all that another process left, or with nothing if it cannot be read.

    Raises:
        HandoverError: it cannot be read, or is not whole. The hub is empty, and the sockets are
            closed: the clients come back, and are told of the gap.
        OSError: it cannot be taken; the consequences are the same.

    """
    arrival = _Arrival(hub, connections)
    sockets: dict[int, socket.socket] = {}
    try:
        try:
            for index in range(left.segments):
                arrival.take(await left.take_segment(index))
            arrival.finish()
        finally:
            # Taken before anything is written to the streams: handed over once more, they would
            # write it twice.
            for sock in await left.take_sockets():
                sockets[_inode(sock)] = sock
        await for_each(arrival.streams, lambda left: arrival.attach(left, sockets))
        for inode in arrival.connections:
            if (idle := sockets.pop(inode, None)) is not None:
                connections.resume(idle)
                arrival.moved.connections += 1
    except (HandoverError, OSError):
        for session in tuple(hub.sessions.values()):
            hub.drop(session, EndReason.DRAINING)
        raise
    finally:
        for sock in sockets.values():
            sock.close()
    return arrival.moved


class _Arrival:
    """Puts the records of a handover into a hub, in order."""

    def __init__(self, hub: Hub, connections: Connections) -> None:
        self._hub = hub
        self._connections = connections
        self._handover: str | None = None
        self._index = 0
        self._now = hub.clock.now()
        self._session: Session | None = None
        self._is_done = False
        self.streams: list[StreamLeft] = []
        self.connections: list[int] = []
        self.moved = Moved()

    def take(self, segment: bytes) -> None:
        """Take the next segment."""
        records = unpack(segment)
        self._begin(next(records, None))
        for record in records:
            self._put(record)

    def attach(self, stream: StreamLeft, sockets: dict[int, socket.socket]) -> None:
        """Let a stream go on, if its client has not hung up in between."""
        inode = stream.inode if stream.unchunked_inode is None else stream.unchunked_inode
        sock = sockets.pop(inode, None)
        session = self._hub.sessions.get(stream.session)
        if sock is None or session is None:
            self.moved.lost_streams += 1
            if sock is not None:
                sock.close()
        else:
            session.attach(self._restored(stream, session, self._connections.adopt(sock)))
            self.moved.streams += 1

    def _restored(
        self, left: StreamLeft, session: Session, sock: socket.socket
    ) -> SocketSubscriber:
        progress = Progress(
            cursor=left.cursor,
            pending=left.pending,
            asked=left.asked,
            max_lag=left.max_lag,
            opened_s=left.opened_s,
            sent_bytes=left.sent_bytes,
            sent_events=left.sent_events,
        )
        is_chunked = left.unchunked_inode is None
        kind = SocketSubscriber if is_chunked else UnchunkedSubscriber
        return kind.restored(
            session,
            sock,
            self._hub.poller,
            stream_id=left.stream_id,
            peer=left.peer,
            progress=progress,
            subject=left.subject,
            expires_at=self._hub.clock.moment(left.expires_at),
        )

    def finish(self) -> None:
        """Check that nothing is missing."""
        if not self._is_done:
            raise HandoverError("its end is missing")

    def _begin(self, record: Record | None) -> None:
        if not isinstance(record, Segment) or record.index != self._index:
            raise HandoverError(f"segment {self._index} is missing")
        if self._handover not in {None, record.handover}:
            raise HandoverError("its segments are of two handovers")
        if self._handover is None:
            self._handover = record.handover
            self.moved.seconds = max(0.0, self._hub.clock.unix_now() - record.at)
            self._now -= self.moved.seconds  # ages are as of its beginning
        self._index += 1

    def _open(self, left: SessionLeft) -> Session:
        """Open a session that another process left; the newest events are to follow."""
        session = self._hub.new_session(left.name, left.incarnation, left.subject)
        floor, floor_age_s = left.floor, left.floor_age_s
        if left.floor_below is not None:
            floor, floor_age_s = left.floor_below, left.floor_below_age_s
        floor_at = -inf if floor_age_s is None else self._now - floor_age_s
        session.log.go_on_from(floor=floor, last=left.last, floor_at=floor_at)
        for each in left.sealed:
            segment = sealed.take(each, now=self._now)
            self.moved.events += len(segment)
            session.log.adopt(segment)
        session.opened_at = self._now - left.opened_s
        session.active_at = self._now - left.active_s
        session.published_at = self._now - left.published_s
        return self._hub.put(session)

    def _put(self, record: Record) -> None:
        match record:
            case SessionLeft():
                self._session = self._open(record)
                self.moved.sessions += 1
            case EventLeft(seq, frame, age_s, ttl_s, key):
                if self._session is None:
                    raise HandoverError("an event has no session")
                appended_at = self._now - age_s
                self._session.log.restore(seq, frame, appended_at=appended_at, ttl=ttl_s, key=key)
                self.moved.events += 1
            case StreamLeft():
                self.streams.append(record)
            case NameEnded(name, age_s):
                self._hub.absent.note_ended(name, self._now - age_s)
            case Done(revoked, connections, alerts):
                for subject, at in revoked:
                    self._hub.revocations.revoke(subject, at)
                self.connections = connections
                self.moved.alerts = [(name, age + self.moved.seconds) for name, age in alerts]
                self._is_done = True
            case Segment():
                raise HandoverError("a segment within a segment")
