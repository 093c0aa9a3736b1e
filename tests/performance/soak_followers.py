"""Those who listen in the soak. They are moody, but each knows exactly what it is owed.

A follower reads on, reads slowly, stops reading or hangs up, for a while each, and mostly comes
back with the id of what it saw last. What it gets has to follow on that, with nothing between: by
the ids, and by the counts of each publisher. Only a gap, or a new start, sets it free from that.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import trio
from typing_extensions import override

from tests.performance.soak_ledger import Id
from tests.performance.soak_response import Block, Response
from tests.performance.soak_world import Violation, World, some_session
from tests.support.sse import Event
from tests.support.talk import target

SILENCE_S = 12.0
"""A stream is never silent for longer: heartbeats are due every two seconds."""

SILENT_SESSION = "silent"
"""Nobody publishes to it: its heartbeats are all that comes."""

SILENT_SHARE = 0.1

MOODS = {"reads": 12, "is slow": 2, "has stopped": 2, "hangs up": 3}
MOOD_S = 3.0
SILENT_MOOD_S = 30.0
SLOW_S = 0.05
SLOW_BYTES = 500
READ_BYTES = 65536
SMALL_BUFFER_BYTES = 4096
LITTLE_S = 0.001
RETURN_S = 0.4

SMALL_BUFFER_SHARE = 0.3
REFUSED_SHARE = 0.1
"""So many would rather be refused than told to come back."""

RESUMED_SHARE = 0.85
UNKNOWN_SHARE = 0.05
UNKNOWN_ID = "00000000-7"

REASONS = frozenset({"session_closed", "slow_consumer", "memory"})


class Follower:
    """A client that listens to one session after another.

    Attributes:
        is_following: whether it has a stream that goes on, or has asked for one.

    """

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._dice = world.random_for(name)
        self._name = name
        self._session = SILENT_SESSION
        self._cursor: str | None = None  # what a client would resume after
        self._seen: Id | None = None  # what the next event has to follow
        self._counts: dict[str, int] = {}  # of each publisher, since nothing was missed
        self._mood, self._mood_ends_at = "reads", 0.0
        self._delivered = 0  # by this stream, as what follows
        self._lost_all = False  # nothing was left behind the gap that came last
        self._end: str | None = None
        self._has_lagged = False
        self._may_be_refused = False
        self.is_following = False

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            async with self._world.gate.acting():
                connection = await self._ask()
            async with connection:
                await self._follow(connection)
            await self._world.gate.nap(self._dice.expovariate(1 / RETURN_S))

    def is_level(self, listed: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether it has all that its session has, when nobody publishes."""
        if not self.is_following:
            return True
        session = listed.get(self._session)
        if session is None:
            return False  # the session was closed: the end of the stream is on its way
        if self._seen is None or session["last_id"] is None:
            return not session["retained_events"]
        last = Id.parse(session["last_id"])
        return last.incarnation == self._seen.incarnation and self._world.ledger.may_be_missing(
            self._seen, last.seq + 1, now=trio.current_time()
        )

    def report(self, listed: Mapping[str, Mapping[str, Any]]) -> str:
        """Say where it is, for whoever has to find out why it is not level."""
        session = listed.get(self._session)
        return f"{self} has {self._seen} ({self._delivered} of this stream) of {session}"

    @override
    def __str__(self) -> str:
        return f"{self._name} of {self._session}"

    # Coming

    async def _ask(self) -> trio.SocketStream:
        query, header = self._start()
        self._may_be_refused = self._dice.random() < REFUSED_SHARE
        if self._may_be_refused:
            query = f"{query}&overload=status".removeprefix("&")
        sock = trio.socket.socket()
        if self._dice.random() < SMALL_BUFFER_SHARE:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        try:
            await sock.connect(("127.0.0.1", self._world.daemon.port))
            connection = trio.SocketStream(sock)
            path = target(self._session, query)
            await connection.send_all(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode()
            )
        except BaseException:
            sock.close()
            raise
        self._delivered, self._end, self._has_lagged = 0, None, False
        self._world.figures.streams += 1
        self.is_following = True
        return connection

    def _start(self) -> tuple[str, str]:
        """Choose where to start; return it as a query, and as a header."""
        if self._cursor is not None and self._dice.random() < RESUMED_SHARE:
            self._world.figures.resumed += 1
            self._owe_after(Id.parse(self._cursor))
            if self._dice.random() < 0.5:
                return "", f"Last-Event-ID: {self._cursor}\r\n"
            return f"lastEventId={self._cursor}", ""
        is_silent = self._dice.random() < SILENT_SHARE
        self._session = SILENT_SESSION if is_silent else some_session(self._dice)
        self._cursor = self._seen = None
        self._counts.clear()
        if self._dice.random() < UNKNOWN_SHARE:
            self._owe_after(Id.parse(UNKNOWN_ID))
            return "", f"Last-Event-ID: {UNKNOWN_ID}\r\n"
        moment = datetime.now(UTC) - timedelta(seconds=self._dice.uniform(-1, 5))
        since = moment.isoformat().replace("+", "%2B")
        starts = ("", "from=start", "from=now", f"from=last:{self._dice.randint(1, 50)}")
        return self._dice.choice((*starts, f"from={since}")), ""

    def _owe_after(self, seen: Id) -> None:
        if seen != self._seen:
            self._counts.clear()
        self._seen = seen

    # Listening

    async def _follow(self, connection: trio.SocketStream) -> None:
        response = Response()
        heard_at = trio.current_time()
        try:
            while not response.is_whole:
                mood = self._present_mood()
                if mood == "hangs up":
                    self._world.figures.cut += 1
                    self._mood_ends_at = 0.0
                    return
                data = await self._hear(connection, mood)
                if mood != "reads" or data is not None:
                    self._has_lagged = self._has_lagged or mood != "reads"
                    heard_at = trio.current_time()
                elif trio.current_time() - heard_at > SILENCE_S:
                    raise Violation(f"{self} has heard nothing for {SILENCE_S} s")
                if data is None:
                    continue
                if not data:
                    break
                for block in response.feed(data):
                    self._take(block)
        except trio.BrokenResourceError:
            pass  # it was reset: judged below
        finally:
            self.is_following = False
        self._judge_end(response)

    def _present_mood(self) -> str:
        now = trio.current_time()
        if now >= self._mood_ends_at:
            self._mood = self._dice.choices(tuple(MOODS), tuple(MOODS.values()))[0]
            mean = SILENT_MOOD_S if self._session == SILENT_SESSION else MOOD_S
            self._mood_ends_at = now + self._dice.expovariate(1 / mean)
        return "reads" if self._world.gate.is_held else self._mood

    async def _hear(self, connection: trio.SocketStream, mood: str) -> bytes | None:
        """Read as the mood has it; return ``None`` where nothing was read while it lasts."""
        left = max(0.0, self._mood_ends_at - trio.current_time()) + LITTLE_S
        if mood == "has stopped":
            await self._world.gate.nap(left)
            return None
        if mood == "is slow":
            await self._world.gate.nap(SLOW_S)
        with trio.move_on_after(left):
            size = SLOW_BYTES if mood == "is slow" else READ_BYTES
            return bytes(await connection.receive_some(size))
        return None

    # Judging

    def _take(self, block: Block) -> None:
        if self._end is not None:
            raise Violation(f"{self} got {block} after the end, {self._end}")
        event = block.event
        if event is None:
            if block.id is None or (self._delivered and not self._lost_all):
                raise Violation(f"{self} got {block}")
            self._lost_all = False
            self._cursor = block.id
            self._owe_after(Id.parse(block.id))
        elif event.type == "broadcaster.gap":
            self._take_gap(json.loads(event.data))
        elif event.type == "broadcaster.end":
            self._take_end(json.loads(event.data))
        else:
            self._take_event(event)

    def _take_event(self, event: Event) -> None:
        now = trio.current_time()
        event_id = Id.parse(event.id)
        seen = self._seen
        if seen is not None and (
            event_id.incarnation != seen.incarnation or event_id.seq <= seen.seq
        ):
            raise Violation(f"{self} got {event_id} after {seen}")
        if seen is not None and event_id.seq > seen.seq + 1:
            self._world.ledger.miss(str(self), seen, event_id.seq, now=now)
        self._seen, self._cursor = event_id, event.id
        self._delivered += 1
        self._world.figures.delivered += 1
        self._world.ledger.enter(event_id, event.type, event.data, now=now)
        self._count(event)

    def _count(self, event: Event) -> None:
        head, _, _ = event.data.partition("\n")
        told = json.loads(head)
        if "n" not in told:
            return
        before = self._counts.get(told["by"], told["n"] - 1)
        if told["n"] != before + 1:
            raise Violation(f"{self} got {head} as {event.id}, and number {before} before it")
        self._counts[told["by"]] = told["n"]

    def _take_gap(self, news: Mapping[str, str | None]) -> None:
        self._world.figures.gaps += 1
        skips = self._world.sections["sessions"]["slow_consumer"] == "skip"
        asked, seen = Id.parse(news["asked"] or ""), self._seen
        if self._delivered and not skips:
            raise Violation(f"{self} got a gap in the middle: {news}")
        self._world.figures.skips += bool(self._delivered)
        if seen is not None:
            if asked.incarnation != seen.incarnation or asked.seq < seen.seq:
                raise Violation(f"{self} had {seen}, and got {news}")
            self._world.ledger.miss(str(self), seen, asked.seq + 1, now=trio.current_time())
        self._counts.clear()
        self._seen = None
        self._lost_all = news["oldest"] is None
        if news["oldest"] is not None:
            oldest = Id.parse(news["oldest"])
            if oldest.incarnation == asked.incarnation and oldest.seq <= asked.seq + 1:
                raise Violation(f"{self} got a gap with nothing in it: {news}")
            self._seen = Id(oldest.incarnation, oldest.seq - 1)

    def _take_end(self, news: Mapping[str, Any]) -> None:
        self._end = news["reason"]
        self._world.figures.ends[self._end] += 1
        closed = self._end == "session_closed"
        if self._end not in REASONS or news["reconnect"] is closed:
            raise Violation(f"the stream of {self} ended with {news}")
        if closed and self._session not in self._world.closed:
            raise Violation(f"{self}: nobody closed that session")
        if closed and self._delivered and self._seen is not None:
            self._world.ledger.miss(str(self), self._seen, None, now=trio.current_time())

    def _judge_end(self, response: Response) -> None:
        figures = self._world.figures
        if response.status == 204 and self._session in self._world.closed:
            figures.over += 1
            self._cursor = None  # so an EventSource stops; this one begins again
        elif response.status == 503 and self._may_be_refused:
            figures.turned_away += 1
        elif response.status != 200:
            raise Violation(f"{self} was answered {response.status or 'nothing'}")
        elif self._end is None or not response.is_whole:
            # The last words need room in the socket, which a reader that lags may not have left.
            figures.silent += 1
            if not self._has_lagged:
                raise Violation(f"the stream of {self} broke off; its end is {self._end}")
