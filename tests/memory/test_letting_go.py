"""Under pressure, who holds memory for nothing lets go of it before any history is shortened.

Other kinds are attacks (``tests/attack/test_attacks.py``): these come from honest clients as well.
"""

from __future__ import annotations

import pytest

from tests.memory.test_holdings import Open, asking_http2, sending
from tests.support.daemon import StartDaemon
from tests.support.flood import ANSWER_S, FAR, Health, client_of, come_too_near, reading
from tests.support.holders import fill, http2_holders, request
from tests.support.talk import target

pytestmark = pytest.mark.slow

EVENTS = 200
CLOSED_WITHIN_S = 60.0
TIMES = 3
"""As often memory is short: what was free already may be enough once, and nobody has to go."""

HELD_MB = 10
NEED_MB = 6
SERVER = {"h2c": True}

# What is held, and how many take more than ``HELD_MB``: twice what is needed.
HELD: dict[str, tuple[int, Open]] = {
    "connections kept after an answer": (1800, sending(request("/health/live"), answered=True)),
    "connections of HTTP/2": (380, http2_holders),
    "pages that are not read on HTTP/2": (
        200,
        asking_http2(target("big", "limit=1000"), accept="application/json", window=0),
    ),
}


@pytest.mark.parametrize("kind", HELD)
async def test_what_is_held_for_nothing_is_let_go_of_and_no_history_pays(
    kind: str, start_daemon: StartDaemon
) -> None:
    count, hold = HELD[kind]
    daemon = start_daemon(server=SERVER, memory=FAR)
    fill(daemon, "big", events=430, size=2000)
    async with client_of(daemon) as client, reading(daemon, "innocent") as [reader]:
        await client.publish_all(
            "innocent", [f"{n} {'x' * 1000}" for n in range(EVENTS)], at_once=50
        )
        with hold(daemon, count):
            await client.until(lambda h: h["memory"]["clients_mb"] > HELD_MB, within=ANSWER_S)
            held_mb: list[float] = []

            def is_closed(health: Health) -> bool:
                held_mb.append(health["memory"]["clients_mb"])
                return bool(health["memory"]["breaker"] == "closed")

            for _ in range(TIMES):
                await come_too_near(daemon, client, {"server": SERVER}, need_mb=NEED_MB)
                await client.until_breaker("warning", within=ANSWER_S)
                await client.until(is_closed, within=CLOSED_WITHIN_S)
                if held_mb[-1] < max(held_mb):
                    break

            # How much of it: what they let go of need not all be back, and more may have been free.
            assert held_mb[-1] < max(held_mb)
        assert (await client.session("innocent"))["retained_events"] == EVENTS
        assert (await client.session("big"))["retained_events"] == 430
        assert (await client.publish("innocent", "next")).status == 200
        await reader.until(lambda r: len(r.data) == EVENTS + 1, within=ANSWER_S)
        assert not reader.ended.is_set()
