"""What a client costs, whoever else there is: subscribers, publishers, tokens, looks at figures.

Each figure is a ratio of CPU time, or a count; build/performance.json has the latest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from typing_extensions import override

from broadcasterd.access.grants import EVERYONE
from broadcasterd.access.ratelimit import RateLimiter
from broadcasterd.access.verified import VerifiedTokens
from broadcasterd.api.pages import page
from broadcasterd.api.request import Head, parse_query
from broadcasterd.broadcast.hub import Hub
from broadcasterd.core.position import Now, Start
from broadcasterd.memory.breaker import State
from broadcasterd.memory.policy import SessionVitals, plan
from tests.performance.costs import blocks_held, function_calls
from tests.support.broadcast import (
    FIRST,
    ThrottledSocket,
    attach,
    drafts,
    events_of,
    start_hub,
    taken,
)
from tests.support.holders import request
from tests.support.inprocess import Serving, serving
from tests.support.measured import Measured, cpu_ratio
from tests.support.talk import target
from tests.support.tokens import (
    OTHER_RSA_KEY,
    RSA_KEY,
    claims,
    loader,
    public_jwk,
    sign,
)

pytestmark = pytest.mark.slow

FEW, MANY = 10, 100
DATA = "x" * 100


async def calls(work: Callable[[], Awaitable[object]]) -> int:
    """Return how many functions some work calls, with all that it sets off.

    The least of a few times: the daemon has other things to do, every second.
    """
    totals = []
    for _ in range(3):
        with function_calls() as count:
            await work()
            await trio.testing.wait_all_tasks_blocked()
        totals.append(count.total)
    return min(totals)


class CountingSocket(ThrottledSocket):
    """Takes everything, and counts the writes."""

    writes = 0

    @override
    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
        self.writes += 1
        return super().send(data, flags)


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks: each is a turn that something had to wait for."""

    count = 0

    @override
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


# --- subscribers -----------------------------------------------------------------------------


async def test_events_that_come_together_are_one_write_to_a_subscriber(
    nursery: trio.Nursery, measured: Measured
) -> None:
    session = (await start_hub(nursery)).open("s")
    sockets = [CountingSocket() for _ in range(FEW)]
    for sock in sockets:
        attach(session, sock, start=Now())
    before = sum(sock.writes for sock in sockets)

    await session.publish(drafts(*[DATA] * MANY))
    await trio.testing.wait_all_tasks_blocked()

    assert all(MANY == len(events_of(bytes(sock.taken))) for sock in sockets)
    measured(sum(sock.writes for sock in sockets) / FEW - before / FEW, "writes", at_most=2)


async def test_an_event_is_with_all_subscribers_after_few_turns_of_the_loop(
    nursery: trio.Nursery, measured: Measured
) -> None:
    session = (await start_hub(nursery)).open("s")
    streams = [attach(session, start=Now()) for _ in range(2 * MANY)]
    await trio.testing.wait_all_tasks_blocked()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)

    await session.publish(drafts(DATA))
    seen = all(DATA.encode() in taken(stream) for stream in streams)

    trio.lowlevel.remove_instrument(steps)
    assert seen, "not when the publisher has its answer"
    measured(steps.count, "turns", at_most=10)


async def test_a_replay_of_a_full_log_takes_few_writes(
    nursery: trio.Nursery, measured: Measured
) -> None:
    session = (await start_hub(nursery, max_history_events=5000)).open("s")
    await session.publish(drafts(*[DATA] * 5000))
    sock = CountingSocket()
    stream = attach(session, sock)
    await trio.testing.wait_all_tasks_blocked(0.01)

    assert 5000 == len(events_of(taken(stream)))
    measured(sock.writes / (len(sock.taken) / 1e6), "writes a megabyte", at_most=40)


async def test_a_subscriber_takes_the_same_memory_however_far_it_is_behind(
    nursery: trio.Nursery, measured: Measured
) -> None:
    hub = await start_hub(nursery, max_history_events=5000, max_lag_events=5000)
    session = hub.open("s")
    await session.publish(drafts(*[DATA] * 5000))
    kept = []

    async def blocks_of(start: Start) -> float:
        sockets = [ThrottledSocket(window=0) for _ in range(MANY)]
        before = await blocks_held()
        kept.extend([attach(session, sock, start=start) for sock in sockets])
        return (await blocks_held() - before) / MANY

    await blocks_of(FIRST)  # the first ones bring caches
    behind, live = await blocks_of(FIRST), await blocks_of(Now())

    measured(behind / live, "times", at_most=4)


async def test_a_heartbeat_costs_a_subscriber_few_calls(
    nursery: trio.Nursery, measured: Measured
) -> None:
    hub = await start_hub(nursery)
    few, many = hub.open("few"), hub.open("many")
    for session, size in ((few, FEW), (many, MANY)):
        for _ in range(size):
            attach(session, start=Now())
    totals = []
    for session in (few, many):
        with function_calls() as count:
            await session._heartbeat()
        totals.append(count.total)

    measured((totals[1] - totals[0]) / (MANY - FEW), "calls", at_most=40)


async def test_a_reconnection_costs_little_more_than_a_first_connection(
    measured: Measured,
) -> None:
    async with serving(sessions={"max_history_events": 1000}) as daemon:
        session = daemon.hub.open("s")
        await session.publish(drafts(*["x"] * 1000))
        recent = session.log.id_of(session.log.last - 1)

        async def connect(*fields: str) -> None:
            for _ in range(FEW):
                streams.append(await daemon.connect())
                await streams[-1].send_all(request(target("s"), *fields))
                await streams[-1].receive_some()

        streams: list[trio.SocketStream] = []
        await connect()
        first = await calls(connect)
        again = await calls(lambda: connect(f"Last-Event-ID: {recent}"))
        for stream in streams:
            await stream.aclose()

    measured(again / first, "times", at_most=1.6)


# --- publishers ------------------------------------------------------------------------------


async def test_a_session_opens_at_the_same_cost_however_many_there_are(
    nursery: trio.Nursery, measured: Measured
) -> None:
    hub = await start_hub(nursery, max_sessions=2000)

    async def open_more() -> None:
        for _ in range(FEW):
            await hub.open(f"s-{len(hub.sessions)}").publish(drafts(DATA))

    await open_more()
    early = await calls(open_more)
    for _ in range(MANY):
        await open_more()
    late = await calls(open_more)

    measured(late / early, "times", at_most=1.5)


async def test_the_breaker_takes_a_small_share_of_a_publish(
    nursery: trio.Nursery, measured: Measured
) -> None:
    hub = await start_hub(nursery)
    session = hub.open("s")
    await session.publish(drafts(DATA))
    whole = await calls(lambda: session.publish(drafts(DATA)))
    with function_calls() as count:
        hub.pressure.refuses_publish()

    measured(count.total / whole, "of a publish", at_most=0.1)


def test_relief_is_planned_at_a_cost_for_each_session(measured: Measured) -> None:
    def sessions(count: int) -> list[SessionVitals]:
        return [
            SessionVitals(f"s-{number}", 100, 10_000, 1, float(number), f"u-{number % 50}")
            for number in range(count)
        ]

    few, many = sessions(200), sessions(2000)

    def briefly() -> None:
        for _ in range(10):
            plan(State.WARNING, 100 * 10_000, lambda: few)

    work = lambda: plan(State.WARNING, 1000 * 10_000, lambda: many)  # noqa: E731
    measured(cpu_ratio(work, briefly), "times", at_most=3)


def test_a_rate_is_looked_up_at_the_same_cost_among_many_clients(measured: Measured) -> None:
    def work(clients: int) -> Callable[[], None]:
        limiter = RateLimiter(1.0, 5.0, max_keys=100_000, clock=lambda: 0.0)
        for number in range(clients):
            limiter.take(f"client-{number}")

        def look() -> None:
            for number in range(500):
                limiter.would_wait(f"client-{number % clients}")
                limiter.take("client-0")

        return look

    measured(cpu_ratio(work(20_000), work(20)), "times", at_most=3)


# --- tokens ----------------------------------------------------------------------------------


def test_a_token_that_was_verified_costs_a_fraction_of_its_signature(
    tmp_path: Path, measured: Measured
) -> None:
    ring = loader(tmp_path)(public_jwk(RSA_KEY), algorithms=("RS256",))
    token = sign(claims(subscribe=("*",)), RSA_KEY, "RS256")
    verified = VerifiedTokens(lambda: 0.0)
    verified.remember(token, ring.verify(token))

    def again() -> None:
        for _ in range(50):
            assert verified.find(token)

    def anew() -> None:
        for _ in range(50):
            ring.verify(token)

    measured(cpu_ratio(again, anew), "times", at_most=0.25)


def test_a_token_that_names_its_key_costs_the_same_among_many_keys(
    tmp_path: Path, measured: Measured
) -> None:
    others = [public_jwk(OTHER_RSA_KEY, kid=f"other-{number}") for number in range(30)]
    token = sign(claims(), RSA_KEY, "RS256", kid="mine")
    totals = []
    for keys in ([], others):
        ring = loader(tmp_path)(*keys, public_jwk(RSA_KEY, kid="mine"), algorithms=("RS256",))
        ring.verify(token)
        with function_calls() as count:
            ring.verify(token)
        totals.append(count.total)

    measured(totals[1] / totals[0], "times", at_most=2)


# --- looks -----------------------------------------------------------------------------------


async def test_a_page_of_events_costs_the_same_an_event_however_long_it_is(
    nursery: trio.Nursery, measured: Measured
) -> None:
    hub: Hub = await start_hub(nursery, max_history_events=1000)
    await hub.open("s").publish(drafts(*[DATA] * 1000))

    def head(limit: int) -> Head:
        query = parse_query(f"limit={limit}".encode())
        return Head("GET", "/", query, {"accept": "application/json"}, "127.0.0.1", "1.1")

    totals = []
    for limit in (50, 500):
        with function_calls() as count:
            answer = await page(head(limit), "s", EVERYONE, hub)
            if not isinstance(answer, dict):
                assert b"".join(answer or ())
        totals.append(count.total)

    measured(totals[1] / 10 / totals[0], "times", at_most=1.5)


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_a_look_costs_the_same_however_much_there_is(path: str, measured: Measured) -> None:
    async with serving(sessions={"max_sessions": 1000}) as daemon:
        stream = await daemon.connect()
        await _get(stream, path, times=2)
        totals = [await calls(lambda: _get(stream, path, times=1))]
        await _fill(daemon, sessions=5 * MANY)
        totals.append(await calls(lambda: _get(stream, path, times=1)))
        await stream.aclose()

    measured(totals[1] / totals[0], "times", at_most=2)


async def _get(stream: trio.SocketStream, path: str, *, times: int) -> None:
    for _ in range(times):
        await stream.send_all(request(path))
        assert b" 200 " in await stream.receive_some()
        await trio.testing.wait_all_tasks_blocked(0.01)


async def _fill(daemon: Serving, *, sessions: int) -> None:
    for number in range(sessions):
        await daemon.hub.open(f"s-{number}").publish(drafts(DATA))
