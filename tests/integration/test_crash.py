"""kill -9, and power cuts: what was answered 200 is there, in order and once, after either.

Publishers flood a few sessions all the time, and followers listen, while the daemon is killed and
started again on the same file. A follower comes back by its last id and is never told of a gap.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from broadcasterd.engine.sqlite import SqliteEngine
from broadcasterd.figures.counts import Counts
from tests.support.daemon import Daemon, Launch
from tests.support.engines import Loaded
from tests.support.survivors import Follower, Publisher

pytestmark = pytest.mark.slow

SESSIONS = ("a", "b", "c")


def settings(directory: Path, port: int) -> dict[str, Any]:
    """Return settings that retain everything, in a file."""
    return {
        "server": {"port": port},
        "engine": {
            "kind": "sqlite",
            "path": str(directory / "events.sqlite"),
        },
        "sessions": {"max_history_events": 1_000_000, "max_history_bytes": 1_000_000_000},
        "limits": {"publish_rate": 1e9, "publish_burst": 1_000_000_000},
    }


def some_seed() -> int:
    return random.randrange(1 << 32)  # noqa: S311 (dice)


def dice_of(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311 (dice)


def free_port() -> int:
    """Return a port of this machine that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def publishers_of(seed: int) -> list[Publisher]:
    return [
        Publisher(f"{session}{kind}", session, dice_of(f"{seed}{session}{kind}"), kind == "k")
        for session in SESSIONS
        for kind in "kn"
    ]


def check_promises(
    publishers: Sequence[Publisher], session: str, data: Sequence[str], told: str
) -> None:
    """Check that all that was promised to publishers of a session is there, in order and once."""
    times = Counter(data)
    for publisher in publishers:
        if publisher.session == session:
            own = [each for each in data if each.startswith(f"{publisher.name}-")]
            promised = set(publisher.promised)
            assert [each for each in own if each in promised] == publisher.promised, told
            assert all(times[each] == 1 for each in own), told
            if publisher.keyed:  # what it retried last may be there, or not
                assert own[: len(promised)] == publisher.promised, told


async def test_kill_9_loses_nothing_that_was_answered_200(tmp_path: Path, launch: Launch) -> None:
    kills, seed = 50, some_seed()
    dice, port = dice_of(seed), free_port()
    start = partial(Daemon.start, tmp_path, launch, **settings(tmp_path, port))
    publishers = publishers_of(seed)
    followers = [Follower(session) for session in SESSIONS]
    daemon = await trio.to_thread.run_sync(start)
    try:
        async with trio.open_nursery() as clients:
            acknowledged, news = trio.open_memory_channel[None](1)
            for follower in followers:
                clients.start_soon(follower.run, port)
            async with trio.open_nursery() as flood:
                for publisher in publishers:
                    flood.start_soon(publisher.run, port, acknowledged)
                for _ in range(kills):
                    await news.receive()
                    await trio.sleep(dice.random() ** 2 * 0.05)
                    daemon.kill()
                    with suppress(trio.WouldBlock):
                        news.receive_nowait()  # of before
                    daemon = await trio.to_thread.run_sync(start)
                await news.receive()
                flood.cancel_scope.cancel()
            last = [Publisher(f"end{s}", s, dice_of(0)) for s in SESSIONS]
            for publisher, follower in zip(last, followers, strict=True):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    assert await publisher.publish(stream)
                await follower.until(publisher.promised[-1])
            anew = [Follower(session) for session in SESSIONS]
            for publisher, follower in zip(last, anew, strict=True):
                clients.start_soon(follower.run, port)
                await follower.until(publisher.promised[-1])
            clients.cancel_scope.cancel()
        daemon.stop_cleanly()
    finally:
        daemon.kill()
    for follower, whole in zip(followers, anew, strict=True):
        told = f"seed {seed}, session {follower.session}"
        check_promises(publishers, follower.session, whole.data, told)
        assert not follower.gaps, told
        assert follower.cuts >= kills, told
        assert (follower.ids, follower.data) == (whole.ids, whole.data), told
        assert len(set(whole.ids)) == len(whole.ids), told
    assert sum(len(publisher.promised) for publisher in publishers) > kills


async def test_a_power_cut_loses_nothing_that_was_answered_200(
    tmp_path: Path, launch: Launch
) -> None:
    """What the files are at a moment of which the daemon knows nothing, is what a disk has then."""
    cuts, seed = 30, some_seed()
    dice, port = dice_of(seed), free_port()
    daemon = await trio.to_thread.run_sync(
        partial(Daemon.start, tmp_path, launch, **settings(tmp_path, port))
    )
    publishers = publishers_of(seed)
    promised: list[dict[str, list[str]]] = []
    try:
        async with trio.open_nursery() as flood:
            acknowledged, news = trio.open_memory_channel[None](1)
            for publisher in publishers:
                flood.start_soon(publisher.run, port, acknowledged)
            for cut in range(cuts):
                await news.receive()
                await trio.sleep(dice.random() * 0.05)
                promised.append({p.name: [*p.promised] for p in publishers})
                copy_at_once(daemon, tmp_path / f"cut-{cut}")
            flood.cancel_scope.cancel()
        daemon.stop_cleanly()
    finally:
        daemon.kill()
    for cut in range(cuts):
        loaded = await load(tmp_path / f"cut-{cut}" / "events.sqlite")
        for publisher in publishers:
            publisher.promised = promised[cut][publisher.name]
        for session in SESSIONS:
            data = [block.removeprefix("data: ").rstrip() for block in loaded.data(session)]
            check_promises(publishers, session, data, f"seed {seed}, cut {cut}")
            seqs = loaded.seqs(session)
            assert seqs == [*range(1, len(seqs) + 1)], f"seed {seed}, cut {cut}"


def copy_at_once(daemon: Daemon, directory: Path) -> None:
    """Copy a daemon's file, and those beside it, as they are at this moment."""
    directory.mkdir()
    daemon.process.send_signal(signal.SIGSTOP)
    for side in daemon.directory.glob("events.sqlite*"):
        shutil.copy(side, directory)
    daemon.process.send_signal(signal.SIGCONT)


async def load(path: Path) -> Loaded:
    """Return what a daemon would find in a file."""
    loaded = Loaded()
    engine = SqliteEngine(path, time.time, Counts())
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load(loaded)
        nursery.cancel_scope.cancel()
    return loaded
