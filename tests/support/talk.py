"""Conversations with a daemon over real connections, each step with a deadline."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import httpx
import trio

from tests.support.daemon import CANARY, Daemon
from tests.support.following import Following
from tests.support.http1 import Answer, Http1

SOON = 30.0
"""Seconds to wait on a loaded machine, for things that take milliseconds."""

CONVERSATION_S = 90.0
"""How long a whole connection may take: on a stream with heartbeats, each line may come soon."""

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
TEXT = {"Content-Type": "text/plain"}
STREAM = {"Content-Type": "text/event-stream"}
CHUNKED = {"Transfer-Encoding": "chunked"}


class Reachable(Protocol):
    """A daemon that listens on loopback, wherever it runs."""

    @property
    def port(self) -> int:
        """The port."""


def target(session: str, query: str = "") -> str:
    """Return the path of a session's events."""
    return f"/v1/sessions/{session}/events{'?' if query else ''}{query}"


def publish(daemon: Daemon, session: str, *data: object) -> list[str]:
    """Publish events with this data; return their ids."""
    key = f"{CANARY}-{secrets.token_hex(8)}"
    body = json.dumps(
        [{"data": item, "idempotency_key": f"{key}-{n}"} for n, item in enumerate(data)]
    )
    answer = httpx.post(daemon.session(session), content=body, headers=JSON)

    assert answer.status_code == 200, answer.text
    incarnation, _, last = answer.json()["last_id"].rpartition("-")
    return [f"{incarnation}-{int(last) - len(data) + 1 + index}" for index in range(len(data))]


@asynccontextmanager
async def connected(daemon: Reachable, *, source: str | None = None) -> AsyncIterator[Http1]:
    """Open a connection; ``source`` is the address that it comes from."""
    with trio.fail_after(CONVERSATION_S):
        async with await trio.open_tcp_stream(
            "127.0.0.1", daemon.port, local_address=source
        ) as stream:
            yield Http1(stream)


@asynccontextmanager
async def following(
    daemon: Reachable, session: str, query: str = "", headers: Mapping[str, str] | None = None
) -> AsyncIterator[Following]:
    """Subscribe, and wait for the opening of the stream."""
    async with connected(daemon) as client:
        yield await client.follow(target(session, query), headers)


async def eventually(condition: Callable[[], Awaitable[bool]], *, within: float = SOON) -> None:
    """Ask again and again until the condition holds; fail if it does not soon."""
    with trio.fail_after(within):
        while not await condition():  # noqa: ASYNC110 (what changes it is another process)
            await trio.sleep(0.01)


async def ask(
    daemon: Reachable,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """Make one request on a connection of its own."""
    async with connected(daemon) as client:
        await client.ask(method, path, headers, body)
        return await client.answer()
