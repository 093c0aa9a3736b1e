"""1,000 connections that send byte by byte: an ordinary client does not notice.

They come again and again for ``BROADCASTERD_TEST_LORIS_S`` seconds (60: with the default timeouts
of the daemon).
"""

from __future__ import annotations

import os
from contextlib import suppress

import psutil
import pytest
import trio

from tests.support.daemon import Daemon, StartDaemon
from tests.support.talk import SOON, ask, eventually, following, target
from tests.support.tools import raise_open_files

SECONDS = float(os.environ.get("BROADCASTERD_TEST_LORIS_S", "5"))

HEAD_TIMEOUT_S = min(10.0, SECONDS / 3)
BODY_TIMEOUT_S = min(30.0, SECONDS / 2)

CONNECTIONS = 1000
A_BYTE_EACH_S = 1.0

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY = (
    f"POST {target('slow')} HTTP/1.1\r\nHost: localhost\r\n"
    'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"data": "'
).encode()


class Attack:
    """Connections that begin something and never get on with it; each comes back when it is cut."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._until = trio.current_time() + HEAD_TIMEOUT_S + SECONDS
        self.open = 0
        self.cut: list[float] = []

    async def run(self) -> None:
        """Attack, and see every connection cut, none of them long after its time."""
        async with trio.open_nursery() as nursery:
            for number in range(CONNECTIONS):
                nursery.start_soon(self._come_again, number)

    async def _come_again(self, number: int) -> None:
        # Not all at the same moment: that would be a flood, which is another matter.
        await trio.sleep(number / CONNECTIONS * HEAD_TIMEOUT_S / 2)
        start, timeout = (HEAD, HEAD_TIMEOUT_S) if number % 2 else (BODY, BODY_TIMEOUT_S)
        while trio.current_time() < self._until:
            async with await trio.open_tcp_stream("127.0.0.1", self._daemon.port) as stream:
                self.open += 1
                began = trio.current_time()
                with trio.fail_after(timeout + 2 * SOON):
                    await self._hold(stream, start)
                self.open -= 1
                lasted = trio.current_time() - began
                assert lasted >= timeout, "it was cut within its limits"
                self.cut.append(lasted - timeout)

    async def _hold(self, stream: trio.SocketStream, start: bytes) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(start)
            while True:
                with trio.move_on_after(A_BYTE_EACH_S):
                    while await stream.receive_some():
                        pass
                    return
                await stream.send_all(b"x")


async def _be_ordinary(daemon: Daemon, latencies: list[float]) -> None:
    """Subscribe, publish and receive, again and again; each time it has to be soon."""
    end = trio.current_time() + SECONDS
    while not latencies or trio.current_time() < end:
        name, began = f"ordinary-{len(latencies)}", trio.current_time()
        with trio.fail_after(SOON):
            async with following(daemon, name) as stream:
                found = await ask(
                    daemon, "POST", target(name), {"Content-Type": "text/plain"}, b"news"
                )
                assert 200 == found.status
                assert ["news"] == await stream.data(1)
        latencies.append(trio.current_time() - began)
        await trio.sleep(0.1)


@pytest.mark.slow
async def test_slow_loris(start_daemon: StartDaemon) -> None:
    raise_open_files(2 * CONNECTIONS)
    limits = {"head_timeout": HEAD_TIMEOUT_S, "body_timeout": BODY_TIMEOUT_S}
    daemon = start_daemon(limits=limits)
    process = psutil.Process(daemon.pid)
    before = daemon.descriptors()
    attack = Attack(daemon)
    latencies: list[float] = []

    async def nearly_all_are_there() -> bool:
        return attack.open >= 0.9 * CONNECTIONS

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attack.run)
        await eventually(nearly_all_are_there)
        await _be_ordinary(daemon, latencies)

    async def is_back() -> bool:
        return daemon.descriptors() <= before

    await eventually(is_back)
    assert len(attack.cut) >= CONNECTIONS
    cpu = process.cpu_times()
    print(  # noqa: T201 (figures for whoever asks with -s)
        f"{len(attack.cut)} cut, at most {max(attack.cut):.2f} s late; {len(latencies)} ordinary"
        f" rounds, median {sorted(latencies)[len(latencies) // 2] * 1000:.0f} ms, worst"
        f" {max(latencies) * 1000:.0f} ms; {cpu.user + cpu.system:.1f} s of CPU"
    )
