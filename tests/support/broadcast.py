"""A hub without HTTP: sessions in the test's own Trio run, and sockets as slow as it needs them."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary, ref

import trio
from typing_extensions import override

from broadcasterd.access.grants import EVERYONE, Grant
from broadcasterd.broadcast.batch import Batch
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.broadcast.subscriber import Subscriber
from broadcasterd.broadcast.subscribers import Subscribers
from broadcasterd.config import Config, Limits, Sessions, Settings
from broadcasterd.core.event import EncodedEvent, Event
from broadcasterd.core.position import First, Start
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Position
from broadcasterd.core.wire import encode_block
from broadcasterd.engine.port import Engine
from broadcasterd.memory.breaker import Thresholds
from tests.support.sse import Event as Seen
from tests.support.sse import parse

FIRST = First()
"""The usual start of a stream: everything that is retained."""

ALL = 1 << 40
"""More bytes than any log here holds."""

_stream_ids = (f"stream-{number}" for number in itertools.count(1))
_JUNK = b"\0" * 65536
_hubs: WeakKeyDictionary[Subscribers, ref[Hub]] = (
    WeakKeyDictionary()
)  # those that were started here


def in_force(limits: Limits | None = None, /, **sessions: object) -> Settings:
    """Return settings in force with these ``[sessions]`` and ``[limits]``."""
    some = Sessions(**sessions)  # type: ignore[arg-type] # the test means what it writes
    return Settings(Config(sessions=some, limits=limits or Limits()))


def make_hub(
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    thresholds: Thresholds | None = None,
    engine: Engine | None = None,
) -> Hub:
    """Return a hub that does not run; its wall clock goes with Trio's, a mock's too."""
    clock = clock or Clock(wall=_wall())
    hub = Hub(settings or in_force(), clock=clock, thresholds=thresholds, engine=engine)
    _hubs[hub.subscribers] = ref(hub)
    return hub


def _wall() -> Callable[[], float]:
    began: list[float] = []

    def now() -> float:
        if not began:
            began.append(time.time() - trio.current_time())
        return began[0] + trio.current_time()

    return now


async def start_hub(nursery: trio.Nursery, hub: Hub | None = None, /, **sessions: object) -> Hub:
    """Start a hub, by default one with these settings; the nursery's end is its end."""
    hub = hub or make_hub(in_force(**sessions))
    await nursery.start(hub.run)
    return hub


def pass_time(hub: Hub, seconds: float) -> None:
    """Put the hub's clock forward, without waking anybody."""
    now = hub.clock.now
    hub.clock.now = lambda: now() + seconds


def hub_of(session: Session) -> Hub:
    """Return the hub that has a session, which the session does not know."""
    hub = _hubs[session._registry]()
    assert hub is not None
    return hub


def draft(data: str, *, ttl: float | None = None, key: str | None = None) -> EncodedEvent:
    """Return an event as a session takes it."""
    return EncodedEvent(encode_block(Event(data)), ttl, key)


def drafts(*data: str) -> list[EncodedEvent]:
    """Return several events, as a session takes them."""
    return [draft(text) for text in data]


def retained(session: Session) -> list[str]:
    """Return the data of all events in a session's log."""
    frames = b"".join(entry.frame for entry in session.log.since(0, max_bytes=ALL))
    return [event.data for event in events_of(frames)]


# --- what a socket took ----------------------------------------------------------------------


def dechunk(taken: bytes) -> tuple[bytes, bool]:
    """Undo the chunked framing; return the body, and whether the last chunk was there.

    A chunk that was cut short fails the test.
    """
    body = bytearray()
    rest = taken
    while rest:
        head, found, _ = rest[:20].partition(b"\r\n")
        size = int(head, 16)
        rest = rest[len(head) + 2 :]
        assert found
        assert rest[size : size + 2] == b"\r\n", "a chunk was cut short"
        if size == 0:
            assert len(rest) == 2, "something follows the last chunk"
            return bytes(body), True
        body += rest[:size]
        rest = rest[size + 2 :]
    return bytes(body), False


def events_of(taken: bytes) -> list[Seen]:
    """Return the events that a client sees in what a socket took."""
    return list(parse(dechunk(taken)[0].decode().split("\n")))


class ThrottledSocket(socket.socket):
    """One end of a pair of sockets, which takes as much as the test lets it.

    The bytes that it took are in ``taken``. After ``window`` bytes its kernel buffer is full, so
    that waiting for it really waits, until :meth:`allow` lets it take more.

    Args:
        window: bytes that it takes until it is full.
        per_write: bytes that it takes of one write at the most.

    """

    def __init__(self, *, window: int = ALL, per_write: int = ALL) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self.settimeout(0)
        self.peer.settimeout(0)
        self.taken = bytearray()
        self.per_write = per_write
        self._window = window
        self._close_if_full()

    @override
    def setsockopt(self, *option: object) -> None:
        """Take any option, TCP's too; a larger buffer has room for all that is written next."""
        if self.fileno() < 0:
            raise OSError
        if socket.SO_SNDBUF in option:
            self._window = self.per_write = ALL

    @override
    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
        if self.fileno() < 0:
            raise OSError
        if self._window == 0:
            raise BlockingIOError
        some = bytes(data)[: min(self._window, self.per_write)]
        self.taken += some
        self._window -= len(some)
        self._close_if_full()
        return len(some)

    def allow(self, size: int = ALL) -> None:
        """Let it take so many bytes more."""
        self._window += size
        if self._window == 0:
            return
        try:
            while self.peer.recv(len(_JUNK)):
                pass
        except BlockingIOError:
            pass

    def hang_up(self) -> None:
        """Close the client's end."""
        self.peer.close()

    @override
    def close(self) -> None:
        super().close()
        self.peer.close()

    def _close_if_full(self) -> None:
        if self._window == 0:
            try:
                while super().send(_JUNK):
                    pass
            except BlockingIOError:
                pass


def attach(
    session: Session,
    sock: socket.socket | None = None,
    *,
    start: Start = FIRST,
    grant: Grant = EVERYONE,
    kind: type[SocketSubscriber] = SocketSubscriber,
) -> SocketSubscriber:
    """Subscribe with a socket; by default with one that takes everything."""
    hub = hub_of(session)
    subscriber = kind(
        session,
        ThrottledSocket() if sock is None else sock,
        hub.poller,
        stream_id=next(_stream_ids),
        peer="127.0.0.1",
        position=session.resolve(start),
        subject=grant.subject,
        expires_at=hub.clock.moment(grant.expires_at),
    )
    session.attach(subscriber)
    return subscriber


def taken(subscriber: SocketSubscriber) -> bytes:
    """Return the bytes that the subscriber's socket took."""
    sock = subscriber._socket
    assert isinstance(sock, ThrottledSocket)
    return bytes(sock.taken)


def data_of(subscriber: SocketSubscriber) -> list[str]:
    """Return the data of the events that the subscriber was sent."""
    return [event.data for event in events_of(taken(subscriber))]


class Arrivals:
    """Takes in the connections that another process accepted, as a server does.

    Attributes:
        idle: those that wait for their next request.

    """

    def __init__(self) -> None:
        self.idle: list[socket.socket] = []

    def adopt(self, sock: socket.socket) -> socket.socket:
        """Take it as it is."""
        return sock

    def resume(self, sock: socket.socket) -> None:
        """Keep it."""
        self.idle.append(sock)


# --- a subscriber that only remembers --------------------------------------------------------


class Recorder(Subscriber):
    """Remembers the data of the events that it is delivered, and every other call.

    Args:
        session: to attach it to.
        on_delivery: called with each batch; what it raises goes to the session.
        grant: lets it listen.

    """

    def __init__(
        self,
        session: Session,
        *,
        on_delivery: Callable[[Batch], None] = lambda _: None,
        grant: Grant = EVERYONE,
    ) -> None:
        super().__init__(
            session,
            stream_id=next(_stream_ids),
            peer="127.0.0.1",
            position=Position(session.log.last),
            subject=grant.subject,
        )
        self.data: list[str] = []
        self.beats = 0
        self.last_words: tuple[str, EndReason, int | None] | None = None
        self._on_delivery = on_delivery
        session.attach(self)

    @property
    @override
    def pending_bytes(self) -> int:
        return 7

    @property
    @override
    def is_behind(self) -> bool:
        return False

    @override
    def open(self) -> None:
        pass

    @override
    def deliver(self, batch: Batch) -> None:
        if not self.closed:
            self._on_delivery(batch)
            self.data += [event.data for event in events_of(batch.frames)]

    @override
    def heartbeat(self) -> None:
        self.beats += 1

    @override
    def finish(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        self.last_words = ("finish", reason, retry_ms)
        self.close(reason)

    @override
    def disconnect(self, reason: EndReason, *, retry_ms: int | None = None) -> None:
        self.last_words = ("disconnect", reason, retry_ms)
        self.close(reason)

    @override
    def close(self, reason: EndReason) -> None:
        if not self.closed:
            self.closed = True
            self.feed.closed(self, reason)


def numbers(ids: Sequence[str]) -> list[int]:
    """Return the sequence numbers in ids."""
    return [int(event_id.rpartition("-")[2]) for event_id in ids]
