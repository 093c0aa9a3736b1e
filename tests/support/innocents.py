"""The innocent, while a daemon is attacked: sessions with a history, listeners, and a publisher.

They listen through every door that there is, and publish all along. None of them may pay for what
others do: :func:`unharmed` has them live while inside, and checks the end that all attacks have.
Within a minute the breaker is closed and memory is back, every history is whole, every stream
brought each event once and in order, and what is asked next is answered.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import trio

from tests.support.flood import ANSWER_S
from tests.support.following import Following, Pieces
from tests.support.http1 import Http1
from tests.support.http2 import Http2
from tests.support.sse import Event
from tests.support.talk import target as events_of
from tests.support.target import Target, request, token_of

CLOSED_WITHIN_S = 60.0
READ_WITHIN_S = 10.0
BACK_WITHIN_MB = 20.0
MORE_DESCRIPTORS = 5
"""What innocents may have opened since; an attacker has more."""

SESSIONS = 2
HISTORY = 200
EVENT_BYTES = 1000
PUBLISH_S = 0.25
RETRY_S = 0.1
WAIT_S = 5
LOOK_S = 0.2
LIVE = 5
"""Events that everybody has got before an attack begins."""

JSON = {"Accept": "application/json"}


class Listener:
    """Somebody who listens to a session, and all that came."""

    def __init__(self, door: str) -> None:
        self.door = door
        self.data: list[str] = []
        self.news: list[str] = []
        """What the daemon itself had to say: a gap, or the end."""

    async def follow(self, stream: Following) -> None:
        """Take what comes on a stream, until cancelled."""
        while (event := await stream.event(within=ANSWER_S)) is not None:
            self._take(event)
        self.news.append("the end")

    async def ask(self, client: httpx.AsyncClient, session: str, headers: dict[str, str]) -> None:
        """Take page after page, until cancelled."""
        cursor = ""
        while True:
            query = f"limit=1000&wait={WAIT_S}&last_event_id={cursor}"
            try:
                reply = await client.get(events_of(session, query), headers=headers | JSON)
            except httpx.TransportError:
                continue  # who waits may be cut when memory is short, and asks again
            if reply.status_code in {429, 503}:
                await trio.sleep(RETRY_S)
                continue
            if reply.status_code == 204:
                self.news.append("the end")
                return
            page = reply.raise_for_status().json()
            self.data += [event["data"] for event in page["events"]]
            self.news += [f"a gap: {page['gap']}"] if "gap" in page else []
            cursor = page["next"]

    def _take(self, event: Event) -> None:
        if event.type == "message":
            self.data.append(event.data)
        else:
            self.news.append(f"{event.type}: {event.data}")

    async def has(self, data: Sequence[str]) -> None:
        """Wait for so much, and see that it is this and no more."""
        with trio.move_on_after(ANSWER_S):
            while len(self.data) < len(data) and not self.news:  # noqa: ASYNC110 (less than an event)
                await trio.sleep(LOOK_S)
        got = self.data
        assert ([], list(data)) == (self.news, got), (
            f"{self.door}: {len(got)} events instead of {len(data)}, "
            f"the same up to {sum(a == b for a, b in zip(got, data, strict=False))}; {self.news}"
        )


class Innocent:
    """A session, with a history, that somebody publishes to and others listen to."""

    def __init__(self, target: Target, name: str) -> None:
        self.name = name
        self.headers = token_of(name)
        self.published: list[str] = []
        self.listeners: list[Listener] = []
        self.refused_with = ""  # the last time
        self._target = target
        self._keys = itertools.count()

    async def publish(self, count: int, *, padding: int = 0) -> int:
        """Publish events until they are accepted; return how often they were refused."""
        first = len(self.published)
        data = [f"{self.name} {first + n}{'x' * padding}" for n in range(count)]
        key = f"{self.name} {next(self._keys)}"
        body = [{"data": text, "idempotency_key": f"{key} {n}"} for n, text in enumerate(data)]
        refusals = 0
        while True:
            try:
                reply = await self._target.client.post(
                    events_of(self.name), json=body, headers=self.headers
                )
            except httpx.TransportError:
                continue  # closed while it was asked, as idle ones may be: hence the keys
            if reply.status_code == 200:
                self.published += data
                return refusals
            assert reply.status_code in {429, 503}, f"{reply.status_code} {reply.text}"
            refusals += 1
            self.refused_with = reply.text
            await trio.sleep(RETRY_S)

    async def listen(self, nursery: trio.Nursery, connections: AsyncExitStack) -> None:
        """Begin to listen, through every door."""
        doors: dict[str, Callable[[AsyncExitStack], Awaitable[Following]]] = {
            "HTTP/1.1": self._http_1_1,
            "HTTP/1.0": self._http_1_0,
            "HTTP/2": self._http_2,
        }
        for door, opened in doors.items():
            listener = Listener(f"{self.name} over {door}")
            nursery.start_soon(listener.follow, await opened(connections))
            self.listeners.append(listener)
        pages = Listener(f"{self.name} in pages")
        nursery.start_soon(pages.ask, self._target.client, self.name, self.headers)
        self.listeners.append(pages)

    async def check(self) -> None:
        """See that every listener, and one who comes now, has all that was published."""
        for listener in self.listeners:
            await listener.has(self.published)
        async with AsyncExitStack() as connections, trio.open_nursery() as nursery:
            late = Listener(f"{self.name}, afterwards")
            nursery.start_soon(late.follow, await self._http_1_1(connections))
            await late.has(self.published)
            nursery.cancel_scope.cancel()

    async def leave(self) -> None:
        """Close the session."""
        await self._target.client.delete(f"/v1/sessions/{self.name}", headers=self.headers)

    async def _http_1_1(self, connections: AsyncExitStack) -> Following:
        stream = await connections.enter_async_context(await self._target.encrypted("http/1.1"))
        return await Http1(stream).follow(events_of(self.name), self.headers)

    async def _http_2(self, connections: AsyncExitStack) -> Following:
        stream = await connections.enter_async_context(await self._target.encrypted("h2"))
        client = Http2(stream)
        await client.start()
        headers = {name.lower(): value for name, value in self.headers.items()}
        return await client.follow(events_of(self.name), headers)

    async def _http_1_0(self, connections: AsyncExitStack) -> Following:
        stream = await connections.enter_async_context(await self._target.encrypted("http/1.1"))
        asked = request("GET", events_of(self.name), self.headers)
        await stream.send_all(asked.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        rest = b""
        with trio.fail_after(ANSWER_S):
            while b"\r\n\r\n" not in rest:
                rest += await stream.receive_some()
        unread = [rest.partition(b"\r\n\r\n")[2]]

        async def take() -> bytes | None:
            return (unread.pop() if unread else b"") or bytes(await stream.receive_some()) or None

        following = Following(Pieces(take))
        await following.opening()
        return following


class Innocents:
    """All of them.

    Attributes:
        before_mb: memory that was resident when all had begun.

    """

    def __init__(self, target: Target, generation: int) -> None:
        self.target = target
        names = [f"innocent-{generation}-{number}" for number in range(SESSIONS)]
        self.everyone = [Innocent(target, name) for name in names]
        self.before_mb = 0.0
        self._before_descriptors = 0
        self._has_stopped = False
        self._next = 1  # events of each session that are published at once
        self._published = trio.Event()

    async def begin(self, nursery: trio.Nursery, connections: AsyncExitStack) -> None:
        """Publish histories, listen, and go on publishing."""
        for innocent in self.everyone:
            await innocent.publish(HISTORY, padding=EVENT_BYTES)
            await innocent.listen(nursery, connections)
            await innocent.publish(LIVE)
        for innocent in self.everyone:
            for listener in innocent.listeners:
                await listener.has(innocent.published)
        self.before_mb = self.target.rss_mb
        self._before_descriptors = self.target.daemon.descriptors()

    async def live(self) -> None:
        """Publish until the end."""
        while not self._has_stopped:
            count, self._next = self._next, 1
            published, self._published = self._published, trio.Event()
            for innocent in self.everyone:
                await innocent.publish(count)
            published.set()
            await trio.sleep(PUBLISH_S)

    async def burst(self, count: int) -> None:
        """Publish many events at once, instead of the next."""
        self._next = count
        await self._published.wait()

    def stop(self) -> None:
        """Publish nothing more, once what is being published is answered."""
        self._has_stopped = True

    async def alone(self) -> None:
        """Wait until attackers are gone, or for so long as it may take to read what they sent.

        A slow daemon may have read nothing of it yet. What a rate holds back stays longer.
        """
        with trio.move_on_after(READ_WITHIN_S):
            most = self._before_descriptors + MORE_DESCRIPTORS
            while self.target.daemon.descriptors() > most:  # noqa: ASYNC110 (it does not tell)
                await trio.sleep(LOOK_S)

    async def memory_is_back(self) -> dict[str, Any]:
        """Wait until the breaker is closed, and memory as it was before."""
        memory: dict[str, Any] = {}
        with trio.move_on_after(CLOSED_WITHIN_S):
            while True:
                memory = (await self.target.health())["memory"]
                assert memory["clients_mb"] >= 0, "more was given back than was held"
                if (
                    memory["breaker"] == "closed"
                    and self.target.rss_mb < self.before_mb + BACK_WITHIN_MB
                ):
                    return memory
                await trio.sleep(LOOK_S)
        raise AssertionError(
            f"not closed, or above {self.before_mb:.1f} MB + {BACK_WITHIN_MB:g}: {memory}"
        )

    async def check(self) -> None:
        """See that nobody paid, and that whoever comes now is welcome."""
        for innocent in self.everyone:
            refusals = await innocent.publish(1)
            assert refusals == 0, f"the next event was refused: {innocent.refused_with}"
        for innocent in self.everyone:
            await innocent.check()
        new = Innocent(self.target, f"{self.everyone[0].name}-new")
        assert 0 == await new.publish(1), "there is no room for a new session"
        ticket = await self.target.client.post(
            "/v1/tickets", json={"session": new.name}, headers=new.headers
        )
        assert 201 == ticket.status_code, "there is no ticket"
        for innocent in (*self.everyone, new):
            await innocent.leave()
        log = self.target.daemon.log()
        for sign_of_failure in ("Traceback", "failed"):
            assert sign_of_failure not in log, log[-4000:]


@asynccontextmanager
async def unharmed(target: Target, generation: int = 0) -> AsyncIterator[Innocents]:
    """Have innocents live while inside, and check at the end that they still do.

    Each ``generation`` has sessions of its own: those of the one before are closed.
    """
    innocents = Innocents(target, generation)
    async with AsyncExitStack() as connections, trio.open_nursery() as listening:
        await innocents.begin(listening, connections)
        async with trio.open_nursery() as publishing:
            publishing.start_soon(innocents.live)
            yield innocents
            await innocents.alone()
            await innocents.memory_is_back()
            innocents.stop()
        await innocents.check()
        listening.cancel_scope.cancel()
