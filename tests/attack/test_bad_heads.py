"""Heads that no client sends by mistake: each is refused, and the log stays readable."""

from __future__ import annotations

import re
from functools import partial

import pytest
import trio

from broadcasterd.observe.limit import RECORDS_PER_S
from tests.support.daemon import Daemon, StartDaemon
from tests.support.fuzz import Reply, all_of, mutated, throw
from tests.support.heads import odd_heads, over_http1, over_http2
from tests.support.talk import ask, connected
from tests.support.tokens import jwt_mode

QUIET_S = 0.15
"""So long a connection is left open that nothing comes on: many of them wait so, one by one."""


async def all_thrown(daemon: Daemon, requests: list[bytes]) -> list[Reply]:
    """Send each on a connection of its own; return the answers."""
    replies: list[Reply] = []

    async def one(data: bytes) -> None:
        replies.append(await throw(daemon.port, data, quiet=QUIET_S))

    await all_of(partial(one, data) for data in requests)
    return replies


@pytest.mark.slow
async def test_no_head_over_http_1_makes_the_daemon_fail(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    whole = [over_http1(head) for head in odd_heads()]
    changed = [mutated(data, seed) for seed, data in enumerate(whole)]
    replies = await all_thrown(daemon, whole + changed)

    assert [] == [reply.raw for reply in replies if 500 in reply.statuses]
    assert "failed" not in daemon.log()
    assert "Traceback" not in daemon.log()


@pytest.mark.slow
async def test_no_head_over_http_2_makes_the_daemon_fail(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(server={"h2c": True})
    whole = [over_http2(head) for head in odd_heads()]
    changed = [data[:33] + mutated(data[33:], seed) for seed, data in enumerate(whole)]
    await all_thrown(daemon, whole + changed)

    # Whatever makes it fail is recorded: that is what "a response failed" is for.
    assert "failed" not in daemon.log()
    assert "Traceback" not in daemon.log()
    assert 200 == (await ask(daemon, "GET", "/health/live")).status


@pytest.mark.parametrize("host", ["..", "a..b", ".a", "a" * 64, "a@b"])
async def test_a_host_that_nobody_can_have_is_400(host: str, daemon: Daemon) -> None:
    reply = await throw(daemon.port, over_http1(("GET", "/v1/sessions", host, ())))

    assert [400] == reply.statuses


async def test_a_slash_that_is_encoded_ends_no_segment(daemon: Daemon) -> None:
    for path in ("/v1/sessions/a%2Fevents", "/v1%2Fsessions", "/v1/sessions%2fa/events"):
        reply = await throw(daemon.port, over_http1(("GET", path, "localhost", ())))

        assert reply.statuses in ([400], [404]), path


@pytest.mark.slow
async def test_bad_tokens_are_counted_and_a_few_of_them_recorded(
    start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    daemon = start_daemon(
        auth=jwt_mode(tmp_path_factory.mktemp("keys")), limits={"max_failures_per_minute": 10_000}
    )
    began = trio.current_time()
    async with connected(daemon) as client:
        for _ in range(500):
            await client.ask("GET", "/v1/sessions", {"Authorization": "Bearer x"})
            assert 401 == (await client.answer()).status
            client.next_request()
    seconds = trio.current_time() - began
    daemon.stop()

    written = daemon.log().count("token refused  ")
    left_out = re.findall(r"left out .*count=(\d+) record='?token refused", daemon.log())
    assert written <= RECORDS_PER_S * (seconds + 2)
    assert 500 == written + sum(map(int, left_out))
