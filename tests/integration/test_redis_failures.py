"""Redis fails: nothing that was answered 200 is lost, nothing is seen twice, and streams stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from broadcasterd.broadcast.hub import Hub
from broadcasterd.handover.transfer import Connections, hand_over, restore
from tests.support.http1 import Http1
from tests.support.inprocess import Serving, until
from tests.support.nodes import Publisher, node, nodes, post, publish
from tests.support.redis import redis, sentinels
from tests.support.shelf import Shelf
from tests.support.sse import Event
from tests.support.talk import Reachable, ask, connected, eventually, following, target

pytestmark = pytest.mark.slow

SOON = 30.0
BEATS = {"heartbeat_interval": 1.0}
"""A client that hears nothing for ten seconds gives up."""

SHORT = {"timeout": 0.5}
"""A Redis that is stopped is noticed after that. A loaded machine may take it for lost too early,
which is no more than another failure to get over."""

WITH_REPLICA = {"timeout": 2.0, "replicas": 1}
"""It is waited for half of that time."""


@dataclass
class Listener:
    """Reads a stream to the end of a test; it never comes back by itself.

    Attributes:
        events: all that it got.

    """

    events: list[Event] = field(default_factory=list)

    @property
    def data(self) -> list[str]:
        """The data of the events of publishers."""
        return [event.data for event in self.events if event.type == "message"]

    async def listen(
        self, at: Reachable, session: str, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Subscribe, and take what comes."""
        with trio.fail_after(2 * SOON):
            async with await trio.open_tcp_stream("127.0.0.1", at.port) as stream:
                following = await Http1(stream).follow(target(session))
                task_status.started()
                while (event := await following.event(within=SOON)) is not None:
                    self.events.append(event)

    async def has(self, count: int) -> None:
        """Wait until it has so many events of publishers."""
        await until(lambda: len(self.data) >= count, within=SOON)


async def is_status(at: Serving, status: str) -> None:
    """Wait until /health has this verdict."""

    async def has() -> bool:
        return bool((await ask(at, "GET", "/health")).json()["status"] == status)

    await eventually(has)


async def through(at: list[Serving], session: str, *, before: object, after: object) -> None:
    """Publish before, while and after something happens to Redis; check what comes of it.

    Args:
        at: the nodes; each has a listener.
        session: to publish to.
        before: called when some events have come; it makes Redis fail.
        after: called once publishers have noticed; it brings it back.

    """
    publisher = Publisher(session, "p", at)
    listeners = [Listener() for _ in at]
    async with trio.open_nursery() as nursery:
        for listener, where in zip(listeners, at, strict=True):
            await nursery.start(listener.listen, where, session)
        for number in range(20):
            await publisher.publish(number, at[number % len(at)])
        publisher.refusals.clear()  # a machine that stalls is another failure to get over
        await before()  # type: ignore[operator]

        async def go_on() -> None:
            for number in range(20, 40):
                await publisher.publish(number, at[number % len(at)])

        async with trio.open_nursery() as publishing:
            publishing.start_soon(go_on)
            await until(lambda: publisher.refusals, within=SOON)
            for where in at:
                await is_status(where, "degraded")
            await after()  # type: ignore[operator]
        for listener in listeners:
            await listener.has(40)
        for where in at:
            await is_status(where, "healthy")
        nursery.cancel_scope.cancel()
    for listener in listeners:
        assert listener.data == publisher.answered
        assert all(event.type == "message" for event in listener.events)
        assert len({event.id for event in listener.events}) == len(listener.events)


AOF = ("--appendonly", "yes", "--appendfsync", "always")


async def test_redis_is_killed_and_comes_back_with_its_file() -> None:
    with redis(*AOF) as server:

        async def before() -> None:
            server.kill()

        async def after() -> None:
            server.start()

        async with nodes(2, server.url, sessions=BEATS) as at:
            await through(at, "s", before=before, after=after)


async def test_redis_does_not_answer_for_a_while() -> None:
    with redis() as server:

        async def before() -> None:
            server.pause()

        async def after() -> None:
            server.go_on()

        async with nodes(2, server.url, engine=SHORT, sessions=BEATS) as at:
            await through(at, "s", before=before, after=after)


async def test_streams_are_told_of_a_gap_where_redis_comes_back_empty() -> None:
    with redis() as server:
        async with nodes(2, server.url, sessions=BEATS) as (a, b):
            before = await publish(a, "s", "one", "two")
            listeners = Listener(), Listener()
            async with trio.open_nursery() as nursery:
                for listener, where in zip(listeners, (a, b), strict=True):
                    await nursery.start(listener.listen, where, "s")
                    await listener.has(2)
                server.kill()
                await is_status(a, "degraded")
                server.start()
                await is_status(a, "healthy")
                await is_status(b, "healthy")
                after = await publish(b, "s", "three")
                for listener in listeners:
                    await listener.has(3)
                nursery.cancel_scope.cancel()
            async with following(a, "s", headers={"Last-Event-ID": str(before["last_id"])}) as late:
                gap = await late.event()
                data = await late.data(1)

    for listener in listeners:
        assert [event.type for event in listener.events] == [
            *("message", "message", "broadcaster.gap", "message")
        ]
        assert listener.data == ["one", "two", "three"]
        assert listener.events[-1].id == after["last_id"]
    assert str(after["last_id"]).partition("-")[0] != str(before["last_id"]).partition("-")[0]
    assert gap is not None
    assert gap.type == "broadcaster.gap"
    assert data == ["three"]


async def test_a_daemon_starts_without_redis_and_is_whole_once_it_is_there(tmp_path: Path) -> None:
    with redis() as server:
        async with node(server.url) as earlier:
            await publish(earlier, "s", "one")
        server.kill()
        async with node(server.url, engine=SHORT) as late:
            await is_status(late, "degraded")
            refused = await post(late, "s", "two")
            async with connected(late) as client:
                await client.ask("GET", target("s"))
                end = await (await client.follow_begun()).end()
            status = await ask(late, "GET", target("s", "overload=status"))
            server.start()
            await is_status(late, "healthy")
            async with following(late, "s") as stream:
                again = await publish(late, "s", "two")
                data = await stream.data(1)

    assert refused.status == 503
    assert "retry-after" in refused.headers
    assert end == {"reason": "unavailable", "reconnect": True}
    assert status.status == 503
    assert data == ["two"]
    assert again["accepted"] == 1


async def test_nothing_is_lost_in_a_failover_where_replicas_are_waited_for() -> None:
    with sentinels() as (primary, replica, url):

        async def before() -> None:
            primary.kill()

        async def after() -> None:
            replica.until(lambda: replica.ask("ROLE").startswith("master"))
            primary.start()
            # The Sentinel would do that, after ten seconds.
            primary.ask("REPLICAOF", "127.0.0.1", str(replica.port))

        async with nodes(2, url, engine=WITH_REPLICA, sessions=BEATS) as at:
            await through(at, "s", before=before, after=after)


@pytest.mark.parametrize("is_lost", [False, True], ids=["it comes back", "the primary is lost"])
async def test_what_no_replica_has_is_seen_by_nobody_and_then_once(*, is_lost: bool) -> None:
    with sentinels() as (primary, replica, url):
        async with nodes(2, url, engine=WITH_REPLICA, sessions=BEATS) as (a, b):
            one = await publish(a, "s", "one")
            publisher, listener = Publisher("s", "p", (a,)), Listener()
            async with trio.open_nursery() as nursery:
                await nursery.start(listener.listen, b, "s")
                replica.ask("REPLICAOF", "127.0.0.1", "1")  # where nobody is: it gets no more
                refused = await post(a, "s", {"data": "p-0", "idempotency_key": "p-0"})
                async with following(
                    a, "s", headers={"Last-Event-ID": str(one["last_id"])}
                ) as late:
                    if is_lost:
                        primary.kill()
                        replica.until(lambda: replica.ask("ROLE").startswith("master"))
                        primary.start()
                        primary.ask("REPLICAOF", "127.0.0.1", str(replica.port))
                    else:
                        replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
                    await publisher.publish(0, a)
                    await publisher.publish(1, a)
                    data = await late.data(2)
                await listener.has(2)
                nursery.cancel_scope.cancel()

    assert refused.status == 503
    assert data == ["p-0", "p-1"]
    assert listener.data == ["one", *data]
    assert all(event.type == "message" for event in listener.events)


async def test_a_restart_hands_streams_over_and_the_next_process_catches_up() -> None:
    shelf = Shelf()

    async def take_up(hub: Hub, connections: Connections) -> tuple[()]:
        await restore(hub, shelf, connections)
        return ()

    with redis() as server:
        async with node(server.url) as other, node(server.url) as before:
            await publish(other, "s", "one")
            async with following(before, "s") as stream:
                data = await stream.data(1)
                await hand_over(before.hub, shelf)
                await publish(other, "s", "two")
                async with node(server.url, take_up) as after:
                    data += await stream.data(1)
                    await publish(other, "s", "three")
                    await publish(after, "s", "four")
                    data += await stream.data(2)

    assert data == ["one", "two", "three", "four"]
