"""Several daemons on one Redis: one order, one id for an event, whichever of them is asked."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Sequence

import pytest
import trio

from broadcasterd.broadcast.shared_session import LINGER_S
from tests.support.http1 import Http1
from tests.support.inprocess import Serving, until
from tests.support.nodes import Publisher, node, nodes, post, publish
from tests.support.redis import Redis, cluster, move_slot, redis
from tests.support.sse import Event
from tests.support.talk import ask, eventually, following, target

PAGE = {"Accept": "application/json"}

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Start one Redis for all tests of this file; each has sessions of its own."""
    with redis() as server:
        yield server


@pytest.fixture
def name() -> str:
    """Return the name of a session that no other test uses."""
    return f"s{next(_numbers)}"


async def test_an_event_has_the_same_id_on_every_node(server: Redis, name: str) -> None:
    async with nodes(2, server.url) as (a, b):
        first = await publish(a, name, "one", "two")
        async with following(a, name) as here, following(b, name) as there:
            seen = [[await stream.event() for _ in range(2)] for stream in (here, there)]
            last = await publish(b, name, "three")
            seen = [
                [*events, await s.event()] for events, s in zip(seen, (here, there), strict=True)
            ]

    assert seen[0] == seen[1]
    assert [event.data for event in seen[0] if event] == ["one", "two", "three"]
    assert [event.id for event in seen[0] if event][1:] == [first["last_id"], last["last_id"]]


async def test_whoever_asks_after_the_answer_finds_the_event(server: Redis, name: str) -> None:
    async with nodes(2, server.url) as (a, b):
        async with following(a, name, "from=now"):
            for number in range(20):
                ids = await publish(a, name, number)
                page = (await ask(a, "GET", target(name, "from=last:1"), PAGE)).json()
                assert [each["id"] for each in page["events"]] == [ids["last_id"]]
        page = (await ask(b, "GET", target(name, "limit=5"), PAGE)).json()

    assert [each["data"] for each in page["events"]] == ["0", "1", "2", "3", "4"]


async def test_an_idempotency_key_holds_on_every_node(server: Redis, name: str) -> None:
    event = {"data": "x", "idempotency_key": "key"}
    async with nodes(2, server.url) as (a, b):
        first = await publish(a, name, event, "y")
        second = await publish(b, name, "z", event)

    assert (second["accepted"], second["duplicates"]) == (1, 1)
    assert second["last_id"] == first["first_id"]


async def test_a_key_is_free_again_once_its_event_left_the_history(
    server: Redis, name: str
) -> None:
    event = {"data": "x", "idempotency_key": "key"}
    async with node(server.url, sessions={"max_history_events": 3}) as a:
        await publish(a, name, event)
        await publish(a, name, 1, 2, 3)
        again = await publish(a, name, event)

    assert again["accepted"] == 1


async def test_a_history_is_as_long_as_the_settings_say_on_a_node_that_comes_late(
    server: Redis, name: str
) -> None:
    async with node(server.url, sessions={"max_history_events": 3}) as a:
        ids = await publish(a, name, *range(10))
        async with (
            node(server.url, sessions={"max_history_events": 3}) as late,
            following(late, name) as stream,
        ):
            data = await stream.data(3)
        async with following(a, name, headers={"Last-Event-ID": str(ids["first_id"])}) as stream:
            gap = await stream.event()

    assert data == ["7", "8", "9"]
    assert gap is not None
    assert gap.type == "broadcaster.gap"


async def test_deleting_ends_a_session_on_every_node(server: Redis, name: str) -> None:
    async with nodes(3, server.url) as (a, b, c):
        await publish(a, name, "x")
        async with following(a, name) as here, following(b, name) as there:
            deleted = await ask(c, "DELETE", f"/v1/sessions/{name}")
            ends = [await here.end(), await there.end()]
        answers = [(await ask(each, "GET", target(name))).status for each in (a, b, c)]
        again = await publish(b, name, "y")
        async with following(c, name) as stream:
            data = await stream.data(1)
        unknown = await ask(c, "DELETE", f"/v1/sessions/{name}-unknown")

    assert (deleted.status, unknown.status) == (204, 404)
    assert ends == 2 * [{"reason": "session_closed", "reconnect": False}]
    assert answers == [204, 204, 204]
    assert data == ["y"]
    assert str(again["first_id"]).endswith("-1")


async def test_a_publisher_is_told_of_the_streams_on_all_nodes(server: Redis, name: str) -> None:
    async with nodes(3, server.url) as (a, b, c):

        async def told() -> list[object]:
            return [(await publish(each, name, "x"))["subscribers"] for each in (a, b, c)]

        async def is_told(count: int) -> None:
            async def holds() -> bool:
                return await told() == 3 * [count]

            await eventually(holds)

        await is_told(0)
        async with following(a, name), following(a, name), following(b, name):
            await is_told(3)
        await is_told(0)


async def test_a_node_lets_go_of_a_session_that_nobody_reads_there_any_more(
    server: Redis, name: str
) -> None:
    async with nodes(2, server.url) as (a, b):
        async with following(b, name, "from=now"):
            pass
        followers = "PUBSUB", "SHARDNUMSUB", f"broadcasterd:{{{name}}}"
        session = b.session(name)
        await until(lambda: not session.subscribers)
        session.active_at -= LINGER_S
        await publish(a, name, "x")
        await until(lambda: session.log.last == 1)
        await b.hub.sweep()
        held = name in b.hub.sessions
        await until(lambda: server.ask(*followers)[-1] == "0")
        async with following(b, name) as stream:
            data = await stream.data(1)

    assert not held
    assert data == ["x"]


async def test_a_page_that_waits_gets_what_comes_at_another_node(server: Redis, name: str) -> None:
    async with nodes(2, server.url) as (a, b):
        pages = []

        async def wait() -> None:
            pages.append((await ask(a, "GET", target(name, "wait=10&from=now"), PAGE)).json())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: len(a.hub.subscribers) == 1)
            await publish(b, name, "x")

    assert [each["data"] for each in pages[0]["events"]] == ["x"]


async def spread(
    at: Sequence[Serving], name: str, *, publishers: int, subscribers: int, each: int, seed: int
) -> list[list[Event]]:
    """Publish at random nodes; return what subscribers at random nodes get."""
    chance = random.Random(seed)  # noqa: S311
    got: list[list[Event]] = []
    total = publishers * each

    async def subscribe(where: Serving, *, task_status: trio.TaskStatus[None]) -> None:
        seen: list[Event] = []
        async with await trio.open_tcp_stream("127.0.0.1", where.port) as connection:
            stream = await Http1(connection).follow(target(name))  # for as long as it takes
            task_status.started()
            while len(seen) < total:
                event = await stream.event(within=600)
                assert event is not None
                seen.append(event)
        got.append(seen)

    async def publish_all(number: int) -> None:
        for n in range(each):
            answer = await post(chance.choice(at), name, f"{number}:{n}")
            assert answer.status == 200

    async with trio.open_nursery() as nursery:
        for _ in range(subscribers):
            await nursery.start(subscribe, chance.choice(at))
        for number in range(publishers):
            nursery.start_soon(publish_all, number)
    return got


@pytest.mark.slow
async def test_all_subscribers_of_all_nodes_get_one_order(server: Redis, name: str) -> None:
    async with nodes(3, server.url, sessions={"max_history_events": 1000}) as at:
        got = await spread(at, name, publishers=10, subscribers=10, each=20, seed=1)

    assert all(seen == got[0] for seen in got)
    assert len({event.id for event in got[0]}) == 200
    for number in range(10):
        mine = [event.data for event in got[0] if event.data.startswith(f"{number}:")]
        assert mine == [f"{number}:{n}" for n in range(20)]


MANY = "BROADCASTERD_TEST_MANY"
"""Set to 1 for the whole of it, which takes minutes of CPU time."""


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(MANY), reason=f"{MANY} is not set")
@pytest.mark.timeout(1800)
async def test_ten_thousand_events_reach_a_hundred_subscribers_in_one_order(
    server: Redis, name: str
) -> None:
    sessions = {"max_history_events": 10_000, "max_lag_events": 10_000}
    async with nodes(3, server.url, sessions=sessions) as at:
        got = await spread(at, name, publishers=10, subscribers=100, each=1000, seed=3)

    assert len({event.id for event in got[0]}) == 10_000
    assert all(seen == got[0] for seen in got)


@pytest.mark.slow
async def test_a_subscriber_that_hops_between_nodes_misses_and_repeats_nothing(
    server: Redis, name: str
) -> None:
    chance = random.Random(2)  # noqa: S311
    seen: list[str] = []
    async with nodes(3, server.url) as at:
        publisher = Publisher(name, "p", at)

        async def publish_all() -> None:
            for number in range(60):
                await publisher.publish(number, chance.choice(at))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_all)
            cursor = ""
            while len(seen) < 60:
                headers = {"Last-Event-ID": cursor} if cursor else None
                async with following(chance.choice(at), name, headers=headers) as stream:
                    seen += await stream.data(min(chance.randint(1, 10), 60 - len(seen)))
                    cursor = stream.cursor

    assert seen == publisher.answered


@pytest.mark.slow
async def test_sessions_are_spread_over_a_cluster() -> None:
    with cluster() as (servers, url):
        async with nodes(2, url) as (a, b):
            for number in range(9):
                await publish(a, f"c{number}", "one")
            for number in range(9):
                async with following(b, f"c{number}") as stream:
                    await publish(a, f"c{number}", "two")
                    assert await stream.data(2) == ["one", "two"]
            sizes = [int(server.ask("DBSIZE")) for server in servers]

    assert all(sizes)


@pytest.mark.slow
async def test_a_session_goes_on_where_its_slot_is_moved_to() -> None:
    with cluster() as (servers, url):
        async with nodes(2, url, engine={"timeout": 2.0}) as (a, b):
            publisher = Publisher("s", "p", (a, b))
            async with following(b, "s") as stream:
                await publisher.publish(0, a)
                move_slot("s", servers)
                for number in range(1, 10):
                    await publisher.publish(number, a)
                data = await stream.data(10)

    assert data == publisher.answered
