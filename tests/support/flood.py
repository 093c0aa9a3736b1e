"""Load without manners: publishers that never pause, readers that stop, and its cost.

The clients are as cheap as they can be, so that on a small machine the daemon has the processor:
h11, with which tests/support/http1.py reads, takes several times as long as the daemon needs to
answer. Their input is taken apart all the same: every answer counts, and every event.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from broadcasterd.memory.holdings import CONNECTION_BYTES, FRAMEWORK_BYTES
from tests.support.daemon import CANARY, Daemon, Launch
from tests.support.http1 import Answer
from tests.support.sse import Event, parse

MIB = 1024 * 1024

ASKING_BYTES = CONNECTION_BYTES + FRAMEWORK_BYTES
"""What the connection takes that asks for ``/health``, while it is answered."""

ASKING_MB = round(ASKING_BYTES / MIB, 3)

ANSWER_S = 30.0
"""How long an answer may take on a loaded machine, under a flood."""

CYCLE_S = 30.0
"""The promise: so long after a flood the breaker is closed again."""

PATIENCE_S = 60.0
"""How long a flood may take to have an effect, on a machine that has other things to do."""

POLL_S = 0.1
READ_BYTES = 65536

Health = dict[str, Any]


class Client:
    """A connection that is kept, and opened again whenever the daemon closes it.

    Args:
        daemon: which one.
        token: that each request carries, if any.

    """

    def __init__(self, daemon: Daemon, token: str | None = None) -> None:
        self._port = daemon.port
        self._token = token
        self._stream: trio.SocketStream | None = None

    async def ask(
        self, method: str, target: str, body: bytes = b"", content_type: str = "application/json"
    ) -> Answer:
        """Make one request and wait for its answer."""
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if self._token is not None:
            head += f"Authorization: Bearer {self._token}\r\n"
        if body:
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        with trio.fail_after(ANSWER_S):
            while True:
                fresh = self._stream is None
                try:
                    return await self._exchange(f"{head}\r\n".encode() + body)
                except (trio.BrokenResourceError, EOFError):
                    self.close()  # an idle connection may be closed while the request is sent
                    if fresh:
                        raise

    async def publish(self, session: str, *data: object) -> Answer:
        """Publish events with this data, in one request."""
        body = json.dumps([{"data": item} for item in data]).encode()
        return await self.ask("POST", f"/v1/sessions/{session}/events", body)

    async def publish_all(self, session: str, data: Sequence[object], *, at_once: int) -> None:
        """Publish events in order, so many a request; each has to be accepted."""
        for start in range(0, len(data), at_once):
            some = data[start : start + at_once]
            reply = await self.publish(session, *some)

            assert (reply.status, reply.json()["accepted"]) == (200, len(some))

    async def health(self) -> Health:
        """Return what ``GET /health`` says."""
        return (await self.ask("GET", "/health")).json()

    async def session(self, name: str) -> dict[str, Any]:
        """Return the daemon's description of a session."""
        return (await self.ask("GET", f"/v1/sessions/{name}")).json()

    async def sessions(self) -> dict[str, dict[str, Any]]:
        """Return the daemon's description of each session, by name."""
        found: dict[str, dict[str, Any]] = {}
        cursor: str | None = ""
        while cursor is not None:
            page = (await self.ask("GET", f"/v1/sessions?limit=1000&cursor={cursor}")).json()
            found |= {session["session"]: session for session in page["sessions"]}
            cursor = page["next"]
        return found

    async def until(self, condition: Callable[[Health], object], *, within: float) -> Health:
        """Poll the health until it is as it should be, and return it."""
        health: Health = {}
        with trio.move_on_after(within):
            while True:
                health = await self.health()
                if condition(health):
                    return health
                await trio.sleep(POLL_S)
        raise AssertionError(f"not within {within} s; the last health was {health}")

    async def until_breaker(self, *states: str, within: float = CYCLE_S) -> Health:
        """Wait for the breaker to be in one of these states."""
        return await self.until(lambda h: h["memory"]["breaker"] in states, within=within)

    def close(self) -> None:
        """Hang up."""
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None

    async def _exchange(self, request: bytes) -> Answer:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        stream = self._stream
        with suppress(trio.BrokenResourceError):
            # The request was refused before it was read: the answer may be there all the same.
            await stream.send_all(request)
        reply = await read_answer(stream)
        if reply.headers.get("connection") == "close":
            self.close()
        return reply


async def read_answer(stream: trio.abc.ReceiveStream) -> Answer:
    """Read a whole answer that says how long it is."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += await _some(stream)
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    while len(body) < int(headers.get("content-length", "0")):
        body += await _some(stream)
    return Answer(int(status.split()[1]), headers, body)


async def _some(stream: trio.abc.ReceiveStream) -> bytes:
    data = bytes(await stream.receive_some(READ_BYTES))
    if not data:
        raise EOFError
    return data


@asynccontextmanager
async def client_of(daemon: Daemon, token: str | None = None) -> AsyncIterator[Client]:
    """Connect for requests one after another."""
    client = Client(daemon, token)
    try:
        yield client
    finally:
        client.close()


# --- publishers that never pause ---------------------------------------------------------------


@dataclass(slots=True)
class Flood:
    """The answers to publishers.

    Attributes:
        answers: how many of each status.
        refusals: the first answer of each status that is not 200.
        acknowledged: events that the daemon said it has.

    """

    answers: Counter[int] = field(default_factory=Counter)
    refusals: dict[int, Answer] = field(default_factory=dict)
    acknowledged: int = 0
    without_retry_after: int = 0

    def note(self, reply: Answer) -> None:
        """Count an answer."""
        self.answers[reply.status] += 1
        if reply.status == 200:
            self.acknowledged += reply.json()["accepted"]
            return
        self.refusals.setdefault(reply.status, reply)
        self.without_retry_after += not reply.headers.get("retry-after", "").isdecimal()


Request = tuple[str, bytes, str]
"""A session, a body and its type."""


def new_sessions(prefix: str = "flood", *, events: int = 1, size: int = 2048) -> Iterator[Request]:
    """Yield publications of events of this size, each to a session of its own."""
    body = json.dumps([{"data": f"{CANARY:x<{size}}"}] * events).encode()
    for number in itertools.count():
        yield f"{prefix}-{number}", body, "application/json"


async def flood(
    daemon: Daemon,
    requests: Iterator[Request],
    *,
    publishers: int = 4,
    seconds: float,
    refusals: int = 0,
    enough: float = math.inf,
    into: Flood | None = None,
    token: str | None = None,
) -> Flood:
    """Publish as fast as answers come, whatever they say.

    The flood lasts for so many seconds, and then, up to a minute, until so many more ``refusals``,
    or until ``enough`` events are accepted.
    """
    result = Flood() if into is None else into

    refused_in_time = 0

    def goes_on() -> bool:
        nonlocal refused_in_time
        now = trio.current_time()
        if now < end:
            refused_in_time = result.answers[503]
        more = result.answers[503] - refused_in_time
        is_due = more < refusals and result.acknowledged < enough
        return now < end or (is_due and now < end + PATIENCE_S)

    async def publish() -> None:
        async with client_of(daemon, token) as client:
            while goes_on():
                session, body, kind = next(requests)
                reply = await client.ask("POST", f"/v1/sessions/{session}/events", body, kind)
                result.note(reply)

    end = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for _ in range(publishers):
            nursery.start_soon(publish)
    return result


# --- readers -------------------------------------------------------------------------------------


Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


def hang_up(stream: Stream) -> None:
    """Close a connection without a word, of TLS either."""
    plain = stream if isinstance(stream, trio.SocketStream) else stream.transport_stream
    plain.socket.close()


class Reader:
    """A subscriber, with all that it was told. Call :meth:`run` in a task of its own.

    Attributes:
        events: what came, in order; the daemon's own too.
        data: the data of the events that publishers sent.
        news: the events that the daemon itself made.
        ended: set when the stream is over, and ``whole`` if that was as it should be.

    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.status = 0
        self.events: list[Event] = []
        self.data: list[str] = []
        self.news: list[Event] = []
        self.cursor = ""
        self.ended = trio.Event()
        self._more = trio.Event()
        self._raw = b""
        self._lines = b""
        self._has_head = False
        self._is_over = False
        self._left: int | None = None

    @property
    def whole(self) -> bool:
        """Whether the response came to its proper end."""
        return self._is_over

    def hang_up(self) -> None:
        """Leave."""
        hang_up(self.stream)

    async def run(self) -> None:
        """Read to the end of the stream."""
        try:
            while not self._is_over and (data := await self.stream.receive_some(READ_BYTES)):
                self._take(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.ended.set()
            self._more.set()

    async def until(self, condition: Callable[[Reader], object], *, within: float) -> None:
        """Wait until a condition on what came holds."""
        with trio.move_on_after(within):
            while not condition(self) and not self.ended.is_set():
                self._more = trio.Event()
                await self._more.wait()
        assert condition(self), f"{len(self.events)} events, the last {self.events[-2:]}"

    def _take(self, data: bytes) -> None:
        self._raw += data
        if not self._has_head:
            head, found, rest = self._raw.partition(b"\r\n\r\n")
            if not found:
                return
            self.status = int(head.split(maxsplit=2)[1])
            self._has_head = True
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            self._left = int(length[1]) if length else None
            self._raw = rest
        if self._left is None:
            self._lines += b"".join(self._chunks())
        else:  # an answer that is whole, not a stream
            self._left -= len(self._raw)
            self._lines, self._raw = self._lines + self._raw, b""
            self._is_over = self._left == 0
        blocks, found, rest = self._lines.rpartition(b"\n\n")
        if found:
            self._lines = rest
            for block in blocks.decode().split("\n\n"):
                self._take_block(block.split("\n"))
        self._more.set()

    def _take_block(self, lines: list[str]) -> None:
        for event in parse([*lines, ""], last_event_id=self.cursor):
            self.events.append(event)
            if event.type == "message":
                self.data.append(event.data)
            elif event.type in {"broadcaster.gap", "broadcaster.end"}:
                self.news.append(event)
        for line in lines:
            if line.startswith("id: "):
                self.cursor = line.removeprefix("id: ")

    def _chunks(self) -> Iterator[bytes]:
        position = 0
        while (eol := self._raw.find(b"\r\n", position)) >= 0:
            size = int(self._raw[position:eol], 16)
            end = eol + 2 + size
            if len(self._raw) < end + 2:
                break
            self._is_over = size == 0
            yield self._raw[eol + 2 : end]
            position = end + 2
        self._raw = self._raw[position:]


async def subscribe(
    daemon: Daemon,
    session: str,
    query: str = "",
    *,
    cursor: str | None = None,
    receive_buffer: int | None = None,
) -> Reader:
    """Ask for a stream; nothing of it is read yet."""
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", daemon.port))
    stream = trio.SocketStream(sock)
    resume = f"Last-Event-ID: {cursor}\r\n" if cursor else ""
    await stream.send_all(
        f"GET /v1/sessions/{session}/events{query} HTTP/1.1\r\n"
        f"Host: 127.0.0.1\r\n{resume}\r\n".encode()
    )
    return Reader(stream)


@asynccontextmanager
async def reading(
    daemon: Daemon, session: str, query: str = "", *, count: int = 1, cursor: str | None = None
) -> AsyncIterator[list[Reader]]:
    """Subscribe so many times, and read while inside; by then, each stream has its opening."""
    readers: list[Reader] = []
    async with trio.open_nursery() as nursery:
        try:
            for _ in range(count):
                reader = await subscribe(daemon, session, query, cursor=cursor)
                nursery.start_soon(reader.run)
                await reader.until(lambda r: r.status, within=ANSWER_S)
                readers.append(reader)
            yield readers
        finally:
            for reader in readers:
                reader.hang_up()


# --- what it costs -------------------------------------------------------------------------------


class Memory:
    """The resident memory of a daemon: now, and the most that it ever was since a reset.

    The maximum is the kernel's own, so no peak falls between two looks.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._proc = Path(f"/proc/{daemon.pid}")
        self.reset()

    @property
    def now_mb(self) -> float:
        """Megabytes resident."""
        return self._daemon.rss() / MIB

    @property
    def own_mb(self) -> float:
        """Those of them that are no file's: pages of a library may come at any time, once."""
        return self._status("RssAnon")

    @property
    def peak_mb(self) -> float:
        """The most megabytes that were resident."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        [line] = re.findall(
            rf"^{name}:\s+(\d+) kB$", (self._proc / "status").read_text(), re.MULTILINE
        )
        return int(line) / 1024

    def reset(self) -> None:
        """Begin anew (proc(5): 5 in clear_refs resets the high water mark)."""
        (self._proc / "clear_refs").write_text("5")


def idle_mb_of(directory: Path, launch: Launch | None = None) -> float:
    """Return the resident memory of a daemon that has answered once, in megabytes."""
    daemon = Daemon.start(directory, launch)
    try:
        httpx.get(f"{daemon.url}/health").raise_for_status()
        return daemon.rss() / MIB
    finally:
        daemon.stop_cleanly()


FAR = {"warning_mb": 2000, "critical_mb": 4000}
"""``[memory]`` settings whose thresholds are never reached."""


def pressed(idle_mb: float, *, critical: float = 60, warning: float = 35) -> dict[str, float]:
    """Return ``[memory]`` settings whose thresholds lie so many megabytes above an idle daemon."""
    return {"critical_mb": idle_mb + critical, "warning_mb": idle_mb + warning}


async def come_too_near(
    daemon: Daemon,
    client: Client,
    sections: Mapping[str, Mapping[str, object]],
    *,
    need_mb: float,
    critical: float = 400,
) -> float:
    """Put the thresholds where so much has to be freed; return the megabytes of ``recover``.

    Args:
        daemon: which one; its thresholds were far away.
        client: asks it.
        sections: all that is configured beside.
        need_mb: what has to be freed.
        critical: megabytes of that threshold, above what is used.

    """
    used_mb: float = (await client.health())["memory"]["used_mb"]
    warning_mb, recover_mb = used_mb - 1, used_mb - need_mb
    memory = {"warning_mb": warning_mb, "recover_below": recover_mb / warning_mb}
    daemon.reload(**sections, memory={**memory, "critical_mb": used_mb + critical})
    return recover_mb


def files_and_threads(daemon: Daemon) -> tuple[int, int]:
    """Return how many files a daemon has open, and how many threads it has."""
    return daemon.descriptors(), len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))


def slope(figures: list[float]) -> float:
    """Return the slope of the least-squares line through figures that are one step apart."""
    middle = (len(figures) - 1) / 2
    mean = sum(figures) / len(figures)
    spread = sum((step - middle) ** 2 for step in range(len(figures)))
    return sum((step - middle) * (y - mean) for step, y in enumerate(figures)) / spread


def transitions(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the records of the breaker in a log of ``log.format = "json"``, in order."""
    records = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    return [record for record in records if record["event"] == "memory breaker"]
