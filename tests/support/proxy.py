"""A TCP proxy that cuts connections, and remembers the requests through it.

It stands for everything that fails between a client and the daemon: Wi-Fi, NAT tables, load
balancers. It runs in a thread of its own, so that tests of any kind can use it.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import trio

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for 0 s: close then sends a RST


class Cut(Enum):
    """How a connection is cut."""

    FIN = "in the middle of the body, but politely"
    RST = "as crashed machines and impatient middleboxes do"


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request, as the client sent it; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def cursor(self) -> str:
        """The id that the client wants to resume after, from the header or the query."""
        query = parse_qs(urlsplit(self.target).query)
        asked = query.get("lastEventId") or query.get("last_event_id") or [""]
        return self.headers.get("last-event-id") or asked[-1]


class CuttingProxy:
    """A context: inside it the proxy listens on ``url``, and after it all is cut.

    A request's body has to have its length said.

    Args:
        upstream: the port of the daemon, on loopback.

    """

    def __init__(self, upstream: int) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.cuts = 0
        self._upstream = upstream
        self._down: deque[tuple[int, Cut]] = deque()
        self._up: deque[tuple[int, Cut]] = deque()
        self._clients: set[trio.SocketStream] = set()
        self._news = threading.Condition()  # of self.requests
        self._ready: queue.Queue[int] = queue.Queue()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._ready.get(timeout=10)}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in_its_thread(self._scope.cancel)
        self._thread.join()

    def session(self, name: str) -> str:
        """Return the URL of a session's events."""
        return f"{self.url}/v1/sessions/{name}/events"

    def lead_to(self, upstream: int) -> None:
        """Connect those who come from now on with another port."""
        self._in_its_thread(lambda: setattr(self, "_upstream", upstream))

    def cut(self, how: Cut = Cut.RST) -> None:
        """Cut every connection now. New ones are served as before."""
        self._in_its_thread(lambda: self._cut_all(how))

    def cut_after(self, *sizes: int, how: Cut = Cut.RST) -> None:
        """Cut the connections that come next, each when it has brought so many bytes."""
        self._in_its_thread(lambda: self._down.extend((size, how) for size in sizes))

    def cut_after_requests_of(self, *sizes: int, how: Cut = Cut.RST) -> None:
        """Cut the connections that come next, each when it has taken up so many bytes."""
        self._in_its_thread(lambda: self._up.extend((size, how) for size in sizes))

    def cursors(self) -> list[str]:
        """Return the cursor of each GET so far."""
        return [request.cursor for request in self.requests if request.method == "GET"]

    def wait_for_requests(self, count: int, *, within: float) -> bool:
        """Wait for the ``count``-th GET; return whether it came ``within`` so many seconds."""
        with self._news:
            return self._news.wait_for(lambda: len(self.cursors()) >= count, within)

    def _in_its_thread(self, function: Callable[[], object]) -> None:
        trio.from_thread.run_sync(function, trio_token=self._token)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self._ready.put(listener.socket.getsockname()[1])
            await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, client: trio.SocketStream) -> None:
        self._clients.add(client)
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self._upstream) as upstream:
                await self._carry(client, upstream)
        except OSError:
            pass  # no daemon: the client finds its connection closed
        finally:
            self._clients.discard(client)

    async def _carry(self, client: trio.SocketStream, upstream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:

            async def until_it_ends(carry: Callable[[], Awaitable[None]]) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await carry()
                nursery.cancel_scope.cancel()

            def cut(how: Cut) -> None:
                self._cut(client, how)

            heads = _Heads()
            nursery.start_soon(
                until_it_ends,
                lambda: _forward(
                    client, upstream, self._up, cut, lambda data: self._note(heads.feed(data))
                ),
            )
            nursery.start_soon(until_it_ends, lambda: _forward(upstream, client, self._down, cut))

    def _note(self, requests: list[Request]) -> None:
        with self._news:
            self.requests += requests
            self._news.notify_all()

    def _cut_all(self, how: Cut) -> None:
        for client in list(self._clients):
            self._cut(client, how)

    def _cut(self, client: trio.SocketStream, how: Cut) -> None:
        if how is Cut.RST:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        else:
            client.socket.shutdown(socket.SHUT_WR)
        client.socket.close()
        self._clients.discard(client)
        self.cuts += 1


async def _forward(
    source: trio.SocketStream,
    sink: trio.SocketStream,
    budgets: deque[tuple[int, Cut]],
    cut: Callable[[Cut], None],
    note: Callable[[bytes], None] = lambda _: None,
) -> None:
    """Send on what comes, until the next budget is used up; then cut."""
    budget: tuple[int, Cut] | None = None
    carried = 0
    async for data in source:
        if budget is None and budgets:
            budget = budgets.popleft()
        part = bytes(data if budget is None else data[: budget[0] - carried])
        note(part)
        await sink.send_all(part)
        carried += len(data)
        if budget is not None and carried >= budget[0]:
            cut(budget[1])
            return


class _Heads:
    """Finds the heads of requests in what a client sends."""

    def __init__(self) -> None:
        self._unread = b""
        self._body_left = 0

    def feed(self, data: bytes) -> list[Request]:
        """Return the requests that begin with heads which end here."""
        found: list[Request] = []
        self._unread += data
        while True:
            passed = min(self._body_left, len(self._unread))
            self._unread = self._unread[passed:]
            self._body_left -= passed
            head, end, rest = self._unread.partition(b"\r\n\r\n")
            if self._body_left or not end:
                return found
            self._unread = rest
            found.append(_parse(head))
            self._body_left = int(found[-1].headers.get("content-length", "0"))


def _parse(head: bytes) -> Request:
    request_line, *lines = head.decode("latin-1").split("\r\n")
    method, target, _version = request_line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return Request(method, target, headers)
