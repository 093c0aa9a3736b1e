"""The watchdog of systemd is pinged all along, however much there is to do."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import trio

from tests.support.attacks import resets_over_many_connections
from tests.support.daemon import StartDaemon
from tests.support.target import Target

WATCHDOG_S = 10.0
"""That of the unit."""

MESSAGE_BYTES = 4096


@pytest.mark.slow
async def test_resets_over_many_connections_leave_time_for_the_watchdog(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as manager:
        await manager.bind(str(tmp_path / "notify"))
        daemon = start_daemon(
            environment={
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": f"{WATCHDOG_S * 1e6:.0f}",
            },
            server={"h2c": True},
        )
        target = Target(daemon)
        pinged = trio.Event()

        async def ping() -> None:
            """Wait for pings for as long as systemd does."""
            while True:
                with trio.fail_after(WATCHDOG_S):
                    while b"WATCHDOG=1" not in await manager.recv(MESSAGE_BYTES):
                        pass
                pinged.set()

        async with target.client, trio.open_nursery() as watching:
            watching.start_soon(ping)
            await resets_over_many_connections(target, Random(0))  # noqa: S311 (not a secret)
            loop = (await target.health())["loop"]
            await pinged.wait()
            watching.cancel_scope.cancel()

    assert loop["max_lag_ms"] < WATCHDOG_S * 1000 / 2
