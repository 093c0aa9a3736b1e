"""A stranger's connections fill memory and leave: the breaker is closed again within a minute.

What they held is in no history: none is shortened for it, and publishing goes on.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
import trio

from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, Launch, StartDaemon, execute
from tests.support.flood import ANSWER_S, MIB

pytestmark = pytest.mark.slow

CLOSED_WITHIN_S = 60.0
BACK_WITHIN_MB = 20.0
EVENTS = 200
HISTORY = [{"data": f"{number} {'x' * 1000}"} for number in range(EVENTS)]
HALF_A_HEAD = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Filler: " + b"x" * 15_000

# What each connection sends, over what, and how many take some 60 MB.
KINDS = {
    "silent": (b"", False, 4000),
    "half-a-head": (HALF_A_HEAD, False, 1500),
    "silent-tls": (b"", True, 2500),
}


@pytest.fixture(scope="module")
def launch() -> Launch:
    """Start each daemon as a shell does, so that its memory is all its own."""
    return execute


@contextmanager
def held(daemon: Daemon, data: bytes, count: int) -> Iterator[None]:
    """Hold so many connections, each of which has sent the same."""
    with ExitStack() as connections:
        for _ in range(count):
            sock = connections.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            sock.sendall(data)
        yield


async def until(client: httpx.AsyncClient, *states: str, within: float) -> dict[str, Any]:
    """Wait for a state of the breaker; return the figures of memory."""
    memory: dict[str, Any] = {}
    with trio.move_on_after(within):
        while True:
            memory = (await client.get("/health")).json()["memory"]
            if memory["breaker"] in states:
                return memory
            await trio.sleep(0.2)
    raise AssertionError(f"not within {within} s: {memory}")


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_that_come_and_go_leave_the_breaker_closed_and_histories_whole(
    kind: str, start_daemon: StartDaemon, idle_mb: float, certificate: Certificate
) -> None:
    data, over_tls, count = KINDS[kind]
    server = (
        {"tls_certificate": str(certificate.chain), "tls_key": str(certificate.key)}
        if over_tls
        else {}
    )
    daemon = start_daemon(
        server=server,
        limits={"max_connections": 20_000, "max_connections_per_address": 20_000},
        memory={"warning_mb": idle_mb + 20, "critical_mb": idle_mb + 35},
        log={"format": "json"},
    )
    url = f"{'https' if over_tls else 'http'}://127.0.0.1:{daemon.port}"
    verify = certificate.client_context() if over_tls else True
    async with httpx.AsyncClient(base_url=url, verify=verify, timeout=ANSWER_S) as client:
        events = "/v1/sessions/innocent/events"
        assert (await client.post(events, json=HISTORY)).json()["accepted"] == EVENTS
        before = (await until(client, "closed", within=ANSWER_S))["rss_mb"]
        with held(daemon, data, count):
            await until(client, "warning", "open", within=ANSWER_S)

        after = await until(client, "closed", within=CLOSED_WITHIN_S)

        page = await client.get(
            events, params={"limit": 1000}, headers={"Accept": "application/json"}
        )
        assert len(page.json()["events"]) == EVENTS, "a history paid for it"
        assert (await client.post(events, json={"data": "next"})).status_code == 200
    assert after["rss_mb"] < before + BACK_WITHIN_MB
    changes = [json.loads(line) for line in daemon.log().splitlines() if "memory breaker" in line]
    assert changes[-1]["after"] == "closed"
    assert daemon.rss() / MIB < before + BACK_WITHIN_MB
