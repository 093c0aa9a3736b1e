"""``broadcasterd.client`` against a real daemon: in a thread, in Trio and in asyncio.

How it follows a stream through cuts: tests/e2e, with the other clients.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from broadcasterd.client import (
    AsyncClient,
    Client,
    End,
    Gap,
    PublishFailed,
    Receipt,
    RequestFailed,
    Unavailable,
)
from tests.support.daemon import Daemon, StartDaemon
from tests.support.proxy import CuttingProxy
from tests.support.tokens import SECRET, claims, jwt_mode, sign

SOON = 60.0
"""Seconds, for a loaded machine; what is waited for takes milliseconds."""

in_each_loop = pytest.mark.parametrize("backend", ["trio", "asyncio"])

ALL = ("*",)


def run(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run in an event loop, for not too long."""

    async def soon() -> None:
        with anyio.fail_after(SOON):
            await main()

    anyio.run(soon, backend=backend)


def retained(daemon: Daemon, session: str = "s") -> list[str]:
    """Return the data of all events of a session."""
    headers = {"Accept": "application/json"}
    page = httpx.get(daemon.session(session), headers=headers, params={"limit": 1000})
    return [event["data"] for event in page.json()["events"]]


def token(**grants: object) -> str:
    return sign(claims(subscribe=ALL, publish=ALL, **grants))  # type: ignore[arg-type]


BAD = sign(claims(publish=ALL, subscribe=ALL), SECRET[::-1])
"""A token that is refused, as one that has expired is."""


def tokens(*made: str) -> tuple[Callable[[], str], list[str]]:
    """Return a source of tokens, and those that are left in it."""
    left = list(made)
    return lambda: left.pop(0), left


# --- to publish ------------------------------------------------------------------------------


def test_one_and_many_are_published_in_order(daemon: Daemon) -> None:
    with Client(daemon.url) as client:
        first = client.publish("s", "0", event="greeting", ttl=100, idempotency_key="k")
        again = client.publish("s", "0", event="greeting", ttl=100, idempotency_key="k")
        many = client.publish_many("s", ({"data": str(n)} for n in range(1, 250)))
        streamed = client.stream("s", ({"data": str(n)} for n in range(250, 253)))

    assert (1, 0) == (first.accepted, first.duplicates)
    assert (0, 1) == (again.accepted, again.duplicates)
    assert (249, 3) == (many.accepted, streamed.accepted)
    assert [str(n) for n in range(253)] == retained(daemon)


@in_each_loop
def test_a_generator_is_published_through_a_restart_once_and_in_order(
    backend: str, daemon: Daemon, start_daemon: StartDaemon
) -> None:
    with CuttingProxy(daemon.port) as proxy:
        made = 0
        is_stopped: anyio.Event
        receipts: list[Receipt] = []

        async def numbers() -> AsyncIterator[dict[str, str]]:
            nonlocal made
            for made in range(1, 651):
                if made == 300:
                    await anyio.to_thread.run_sync(daemon.stop)
                    await anyio.to_thread.run_sync(proxy.cut)
                    is_stopped.set()
                yield {"data": str(made)}

        async def successor() -> None:
            await is_stopped.wait()
            started = await anyio.to_thread.run_sync(start_daemon)
            assert made <= 300 + 2 * 100 + 1, "more was made than is kept for a daemon that is away"
            await anyio.to_thread.run_sync(proxy.lead_to, started.port)
            daemons.append(started)

        async def main() -> None:
            nonlocal is_stopped
            is_stopped = anyio.Event()
            async with AsyncClient(proxy.url) as client, anyio.create_task_group() as group:
                group.start_soon(successor)
                receipts.append(await client.stream("s", numbers()))

        daemons: list[Daemon] = []
        run(backend, main)

    assert 650 == receipts[0].accepted
    after = [int(data) for data in retained(daemons[0])]
    assert after == list(range(after[0], 651))
    assert 200 <= after[0] <= 300


@in_each_loop
def test_each_event_of_a_generator_is_broadcast_while_the_next_is_awaited(
    backend: str, daemon: Daemon
) -> None:
    async def main() -> None:
        heard = anyio.Event()

        async def one_by_one() -> AsyncIterator[dict[str, str]]:
            yield {"data": "first"}
            await heard.wait()
            yield {"data": "second"}

        async def listen(client: AsyncClient) -> None:
            async with client.subscribe("s") as events:
                assert "first" == (await anext(events)).data
                heard.set()
                assert "second" == (await anext(events)).data

        async with AsyncClient(daemon.url) as client, anyio.create_task_group() as group:
            group.start_soon(listen, client)
            await client.stream("s", one_by_one())

    run(backend, main)


@in_each_loop
def test_what_a_generator_raises_is_raised_when_what_it_made_is_accepted(
    backend: str, daemon: Daemon
) -> None:
    async def broken() -> AsyncIterator[dict[str, str]]:
        yield {"data": "made"}
        raise ZeroDivisionError

    async def main() -> None:
        async with AsyncClient(daemon.url) as client:
            with pytest.raises(ZeroDivisionError):
                await client.stream("s", broken())

    run(backend, main)

    assert ["made"] == retained(daemon)


@in_each_loop
def test_a_generator_is_closed_when_one_of_its_events_is_refused(
    backend: str, daemon: Daemon
) -> None:
    is_closed = False

    async def bad() -> AsyncIterator[dict[str, object]]:
        nonlocal is_closed
        try:
            for n in range(1_000_000):
                yield {"data": n} if n != 7 else {"text": n}
        finally:
            is_closed = True

    async def main() -> None:
        async with AsyncClient(daemon.url) as client:
            with pytest.raises(PublishFailed, match="422") as failed:
                await client.stream("s", bad())
            assert (7, 7) == (failed.value.index, failed.value.receipt.accepted)

    run(backend, main)

    assert is_closed
    assert [str(n) for n in range(7)] == retained(daemon)


@in_each_loop
def test_an_empty_generator_asks_whether_anything_would_be_taken(
    backend: str, daemon: Daemon
) -> None:
    async def nothing() -> AsyncIterator[dict[str, object]]:
        for nobody in list[dict[str, object]]():
            yield nobody

    async def main() -> None:
        async with AsyncClient(daemon.url) as client:
            receipt = await client.stream("s", nothing())
            assert ("s", 0) == (receipt.session, receipt.accepted)

    run(backend, main)


# --- to listen -------------------------------------------------------------------------------


def test_a_restart_without_a_handover_is_told_as_a_gap(
    daemon: Daemon, start_daemon: StartDaemon
) -> None:
    with (
        CuttingProxy(daemon.port) as proxy,
        Client(proxy.url, sleep=lambda _: None) as client,
        client.subscribe("s") as events,
    ):
        first = client.publish("s", {"n": 1})
        assert {"n": 1} == next(events).json()
        proxy.lead_to(start_daemon().port)
        daemon.stop()
        end = next(events)
        client.publish("s", "2")
        gap, second = islice(events, 2)

    assert isinstance(end, End)
    assert ("draining", True) == (end.reason, end.reconnect)
    assert isinstance(gap, Gap)
    assert first.last_id == gap.asked
    # It may come back before there is anything new: then there is nothing that is left.
    assert gap.oldest in {None, second.id}
    assert "2" == second.data


@in_each_loop
def test_the_end_of_a_session_ends_the_iteration(backend: str, daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncClient(daemon.url) as client:
            await client.publish("s", "1")
            async with client.subscribe("s", start="last:1") as events:
                assert "1" == (await anext(events)).data
                await client.end("s")
                [end] = [event async for event in events]
            async with client.subscribe("s") as events:
                assert [] == [event async for event in events]
            await client.end("never-there")
        assert isinstance(end, End)
        assert ("session_closed", False) == (end.reason, end.reconnect)

    run(backend, main)


@in_each_loop
def test_more_streams_are_open_at_once_than_a_pool_of_connections_has(
    backend: str, daemon: Daemon
) -> None:
    async def main() -> None:
        everybody = anyio.Event()
        heard = 0

        async def listen(client: AsyncClient) -> None:
            nonlocal heard
            async with client.subscribe("s") as events:
                await anext(events)
                heard += 1
                if heard == 105:
                    everybody.set()
                await everybody.wait()

        async with AsyncClient(daemon.url) as client, anyio.create_task_group() as group:
            await client.publish("s", "1")
            for _ in range(105):
                group.start_soon(listen, client)

    run(backend, main)


# --- tokens ----------------------------------------------------------------------------------


def test_another_token_is_got_when_the_last_one_is_refused(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path))
    source, left = tokens(BAD, token(), BAD, token(), BAD, token(admin=True), "never")

    with Client(daemon.url, token=source) as client:
        client.publish("s", "1")
        client._credentials.token = None  # as a program that starts anew
        with client.subscribe("s") as events:
            assert "1" == next(events).data
        client._credentials.token = None
        assert ["s"] == [each.session for each in client.sessions()]

    assert ["never"] == left


@pytest.mark.parametrize("source", [BAD, lambda: BAD], ids=["fixed", "made"])
def test_a_token_that_no_other_can_replace_is_an_error(
    source: str | Callable[[], str], start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path))

    with Client(daemon.url, token=source) as client:
        with pytest.raises(PublishFailed, match=r"^401 "):
            client.publish("s", "1")
        with client.subscribe("s") as events, pytest.raises(RequestFailed, match=r"^401 "):
            next(events)
        with pytest.raises(RequestFailed, match=r"^401 ") as failed:
            next(client.sessions())

    assert not isinstance(failed.value, Unavailable)


def test_what_the_source_of_tokens_raises_ends_the_call(daemon: Daemon) -> None:
    def broken() -> str:
        raise httpx.ConnectError("the login service is away")

    with Client(daemon.url, token=broken) as client:
        with pytest.raises(httpx.ConnectError):
            client.publish("s", "1")
        with client.subscribe("s") as events, pytest.raises(httpx.ConnectError):
            next(events)


@pytest.mark.slow
@in_each_loop
def test_a_stream_goes_on_when_its_token_has_expired(
    backend: str, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path), sessions={"retry_ms": 50, "min_retry_ms": 50})
    made = 0

    async def make() -> str:
        nonlocal made
        await anyio.lowlevel.checkpoint()
        made += 1
        return token(ttl=1 if made == 1 else 3600)

    async def main() -> None:
        async with AsyncClient(daemon.url, token=make) as client, client.subscribe("s") as events:
            await client.publish("s", "before")
            before, end = [await anext(events) for _ in range(2)]
            async with AsyncClient(daemon.url, token=token()) as another:
                await another.publish("s", "after")
            assert ("before", "after") == (before.data, (await anext(events)).data)
            assert isinstance(end, End)
            assert "token_expired" == end.reason

    run(backend, main)

    assert 2 == made


# --- to look ---------------------------------------------------------------------------------


@in_each_loop
def test_health_and_sessions_are_figures(backend: str, daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncClient(daemon.url) as client:
            await client.publish_many("s", [{"data": n} for n in range(3)])
            [session] = [each async for each in client.sessions()]
            health = await client.health()

            assert (3, 0) == (session.retained_events, session.subscribers)
            assert ("healthy", 1) == (health.status, health.sessions)
            assert 200 == health.memory.warning_mb

    run(backend, main)


def figures(client: Client) -> Iterator[object]:
    yield client.health().status
    yield client.stats().sessions
    yield from (each.session for each in client.sessions())


def test_they_are_the_same_in_a_thread(daemon: Daemon) -> None:
    with Client(daemon.url) as client:
        client.publish("s", "1")

        assert ["healthy", 1, "s"] == list(figures(client))

    daemon.stop()
    with Client(daemon.url) as client, pytest.raises(Unavailable):
        client.health()
