"""Publishing: what becomes of a body whose sender's grant expires."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from broadcasterd.access.grants import Grant
from broadcasterd.api.publish import publish
from broadcasterd.api.request import Head
from broadcasterd.broadcast.clock import Clock
from broadcasterd.errors import Problem
from tests.support.broadcast import in_force, make_hub, retained, start_hub


async def test_a_body_that_never_has_to_be_waited_for_does_not_outlive_its_grant(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    clock = Clock(wall=lambda: 1764000000.0 + trio.current_time())
    hub = await start_hub(nursery, make_hub(in_force(max_history_events=1000), clock=clock))

    async def a_line_a_second() -> AsyncIterator[bytes]:
        for number in range(1000):
            mock_clock.jump(1)
            yield b'{"data": %d}\n' % number

    with pytest.raises(Problem) as refused:
        await publish(
            Head("POST", "/", (), {"content-type": "application/x-ndjson"}, "127.0.0.1", "1.1"),
            "s",
            a_line_a_second(),
            grant=Grant(expires_at=hub.clock.unix_now() + 60.5),
            hub=hub,
        )

    assert refused.value.status == 401
    assert refused.value.extra["accepted"] == len(retained(hub.find("s"))) == 60
