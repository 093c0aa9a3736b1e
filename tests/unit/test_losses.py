"""A loss is told exactly once, and every answer leaves the client at a place to come back from.

Whatever happens to a session and to its client, the events that it saw and the losses that it was
told are the events that were published. A world of one session, and one client that follows it as
a stream or in pages, goes through publishing, eviction, expiry, cuts, restarts and crashes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from broadcasterd.access.grants import EVERYONE
from broadcasterd.api.pages import page
from broadcasterd.api.request import Head, parse_query
from broadcasterd.api.subscribe import Admission, admit
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.handover.transfer import hand_over, restore
from tests.support.broadcast import Arrivals, ThrottledSocket, drafts, in_force, make_hub, start_hub
from tests.support.shelf import Shelf

RETAINED = 3
EVENT_TTL_S = 10.0
EPOCH = 1764000000.0
SINCE_EPOCH = "from=2025-11-24T16:00:00Z"
STARTS = ["from=start", "from=now", "from=last:2", SINCE_EPOCH, "last_event_id=x-1"]

GAP = "broadcaster.gap"


class Client(Protocol):
    """One that follows the session."""

    async def read(self) -> None:
        """Take what is there; come back, if it was cut off."""

    def cut(self, share: float) -> None:
        """Be cut off when that share of what was sent has arrived."""


@dataclass
class World:
    """A session, and what was published to it: event ``n`` has the data ``n``."""

    hub: Hub
    nursery: trio.Nursery
    settings: dict[str, object]
    published: int = 0
    first_of: dict[str, int] = field(default_factory=dict)  # the first number of an incarnation

    async def publish(self, count: int) -> None:
        session = self.hub.open("s")
        self.first_of.setdefault(session.log.incarnation, self.published)
        await session.publish(drafts(*(str(self.published + n) for n in range(count))))
        self.published += count

    async def let_expire(self, seconds: int) -> None:
        await trio.sleep(seconds)
        await self.hub.sweep()

    async def forget(self) -> None:
        if (session := self.hub.sessions.get("s")) is not None:
            self.hub.drop(session, EndReason.MEMORY)
            await trio.testing.wait_all_tasks_blocked()

    async def crash(self) -> None:
        self.hub = await start_hub(self.nursery, self._hub())

    async def restart(self) -> None:
        shelf = Shelf()
        await hand_over(self.hub, shelf)
        self.hub = await start_hub(self.nursery, self._hub())
        await restore(self.hub, shelf, Arrivals())

    def _hub(self) -> Hub:
        return make_hub(in_force(**self.settings), clock=self.hub.clock)

    def number_after(self, event_id: str) -> int:
        """Return the number of the event that follows an id."""
        incarnation, _, seq = event_id.rpartition("-")
        return self.first_of.get(incarnation, self.published) + int(seq)

    def lost(self, asked: str, expected: int) -> bool:
        """Whether a client that asked for an id, and expects an event, has lost something."""
        session = self.hub.sessions.get("s")
        if session is None or asked.rpartition("-")[0] != session.log.incarnation:
            return True  # it may have: nobody knows any more
        return session.log.floor > 0 and self.number_after(session.log.id_of(session.log.floor)) > (
            expected
        )


@dataclass
class Ledger:
    """What a client was given: it fails at what is missing, or is there twice."""

    world: World
    start: str
    cursor: str = ""
    expected: int | None = None  # the number that has to come next; None: whatever comes
    told: bool = False  # a gap, and nothing after it yet

    def begin(self) -> None:
        """Note that it asks: with a time, all of the session from then on is owed."""
        session = self.world.hub.sessions.get("s")
        if session is not None:
            self.world.first_of.setdefault(session.log.incarnation, self.world.published)
        if not self.cursor and self.start == SINCE_EPOCH:
            begun = None if session is None else session.log.id_of(0)
            self.expected = None if begun is None else self.world.number_after(begun)

    def event(self, event_id: str, number: int) -> None:
        if self.expected is not None and not self.told:
            assert number == self.expected, f"{number} came for {self.expected}"
        if self.expected is not None:
            assert number >= self.expected, f"{number} came twice"
        self._at(event_id, number + 1)

    def gap(self, asked: str) -> None:
        assert not self.told, "told twice"
        if self.expected is not None:
            assert self.world.lost(asked, self.expected), "nothing was lost"
        self.told = True

    def position(self, event_id: str) -> None:
        after = self.world.number_after(event_id)
        if self.expected is not None and not self.told:
            assert after == self.expected, "moved on in silence"
        self._at(event_id, after)

    def cut_off(self) -> None:
        self.told = False  # it has no id of a place after the gap: it is told again
        if not self.cursor:
            self.expected = None  # it begins anew

    def _at(self, event_id: str, following: int) -> None:
        self.cursor, self.expected, self.told = event_id, following, False


class Streaming:
    """Follows it as a stream, as an EventSource does."""

    def __init__(self, world: World, start: str) -> None:
        self._world = world
        self._query = start
        self.ledger = Ledger(world, start)
        self._sock: ThrottledSocket | None = None
        self._subscriber: SocketSubscriber | None = None
        self._hub = world.hub

    async def read(self) -> None:
        if self._hub is not self._world.hub or self._subscriber is None or self._subscriber.closed:
            self.cut(1.0)
            self._connect()
        await trio.testing.wait_all_tasks_blocked()
        if self._subscriber is not None and self._subscriber.closed:  # too slow, or forgotten
            await self.read()

    def cut(self, share: float) -> None:
        if self._sock is None or self._subscriber is None:
            return
        sent = _body(bytes(self._sock.taken))
        whole, _, _ = sent[: round(share * len(sent))].rpartition("\n\n")
        for block in whole.split("\n\n"):
            self._take(block)
        self.ledger.cut_off()
        self._subscriber.close(EndReason.CLIENT_GONE)
        self._sock = self._subscriber = None

    def _connect(self) -> None:
        self._hub = self._world.hub
        fields = {"last-event-id": self.ledger.cursor} if self.ledger.cursor else {}
        admission = admit(_head(self._query, fields), "s", EVERYONE, self._hub)
        assert isinstance(admission, Admission)
        self.ledger.begin()
        self._sock = ThrottledSocket()
        self._subscriber = SocketSubscriber(
            admission.session,
            self._sock,
            self._hub.poller,
            stream_id=admission.stream_id,
            peer="127.0.0.1",
            position=admission.position,
            opening=admission.opening,
        )
        admission.session.attach(self._subscriber)

    def _take(self, block: str) -> None:
        lines = [line.partition(": ")[::2] for line in block.split("\n")]
        fields = {name: value for name, value in lines if name in {"id", "event", "data"}}
        if fields.get("event") == GAP:
            [asked] = re.findall(r'"asked":"([^"]*)"', fields["data"])
            self.ledger.gap(asked)
        elif "event" not in fields and "data" in fields:
            self.ledger.event(fields["id"], int(fields["data"]))
        elif "id" in fields:
            self.ledger.position(fields["id"])


class Paging:
    """Follows it in pages; it is never cut off, but may come late."""

    def __init__(self, world: World, start: str) -> None:
        self._world = world
        self._query = start
        self.ledger = Ledger(world, start)

    async def read(self, wait: int = 0) -> None:
        query = f"last_event_id={self.ledger.cursor}" if self.ledger.cursor else self._query
        self.ledger.begin()
        found = await page(_head(f"{query}&wait={wait}"), "s", EVERYONE, self._world.hub)
        assert isinstance(found, dict)
        match found:
            case {"gap": {"asked": str(asked)}}:
                self.ledger.gap(asked)
        match found:
            case {"events": list(events), "next": str(following)}:
                for event in events:
                    self.ledger.event(event["id"], int(event["data"]))
                self.ledger.position(following)

    def cut(self, share: float) -> None:
        pass


def _head(query: str, fields: dict[str, str] | None = None) -> Head:
    return Head("GET", "/", parse_query(query.encode()), fields or {}, "127.0.0.1", "1.1")


def _body(chunked: bytes) -> str:
    """Undo the chunks, of which the last may be cut short."""
    body = b""
    while chunked:
        size, _, chunked = chunked.partition(b"\r\n")
        body, chunked = body + chunked[: int(size, 16)], chunked[int(size, 16) + 2 :]
    return body.decode()


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 2 * RETAINED)),
    st.tuples(st.just("expire"), st.sampled_from([4, 11])),
    st.tuples(st.just("cut"), st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])),
    st.tuples(st.just("wait"), st.integers(1, 2 * RETAINED)),
    st.tuples(st.sampled_from(["read", "forget", "crash", "restart"]), st.just(0)),
)


async def _play(
    kind: Callable[[World, str], Streaming | Paging],
    start: str,
    slow_consumer: str,
    steps: list[tuple[str, float]],
) -> None:
    sessions: dict[str, object] = {
        "max_history_events": RETAINED,
        "event_ttl": EVENT_TTL_S,
        "max_lag_events": 2,
        "slow_consumer": slow_consumer,
    }
    clock = Clock(wall=lambda: EPOCH + trio.current_time() - began)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        hub = await start_hub(nursery, make_hub(in_force(**sessions), clock=clock))
        world = World(hub, nursery, sessions)
        client = kind(world, start)
        for name, how in steps:
            await _step(world, client, name, how)
            await trio.testing.wait_all_tasks_blocked()
        await client.read()
        client.cut(1.0)
        await client.read()  # nothing happened since: nothing is told again
        client.cut(1.0)
        if client.ledger.cursor:
            assert client.ledger.expected == world.published
        nursery.cancel_scope.cancel()


async def _step(world: World, client: Streaming | Paging, name: str, how: float) -> None:
    match name:
        case "publish":
            await world.publish(int(how))
        case "expire":
            await world.let_expire(int(how))
        case "cut":
            client.cut(how)
        case "read":
            await client.read()
        case "wait" if isinstance(client, Paging):
            async with trio.open_nursery() as both:
                both.start_soon(client.read, 5)
                await trio.testing.wait_all_tasks_blocked()
                await world.publish(int(how))
        case "forget":
            await world.forget()
        case "crash":
            client.cut(1.0)
            await world.crash()
        case "restart":
            client.cut(1.0)
            await world.restart()


@pytest.mark.parametrize("kind", [Streaming, Paging])
@given(
    start=st.sampled_from(STARTS),
    slow_consumer=st.sampled_from(["end", "skip"]),
    steps=st.lists(STEPS, max_size=12),
)
@example(start="from=now", slow_consumer="end", steps=[("read", 0), ("publish", 2)])
@example(start="last_event_id=x-1", slow_consumer="end", steps=[("read", 0), ("cut", 1.0)])
@example(start="from=now", slow_consumer="end", steps=[("wait", 5), ("publish", 1)])
def test_events_seen_and_losses_told_are_events_published(
    kind: Callable[[World, str], Streaming | Paging],
    start: str,
    slow_consumer: str,
    steps: list[tuple[str, float]],
) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(_play, kind, start, slow_consumer, steps, clock=clock)
