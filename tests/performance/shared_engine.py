"""What a shared engine costs: events through Redis, and what one costs a node that follows it.

``python -m tests.performance.shared_engine`` starts a redis-server, a process that publishes to
many sessions, and one that has them all in its logs; it prints figures of one event.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import trio

from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.config import Settings, from_mapping
from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.redis.engine import RedisEngine
from broadcasterd.figures.counts import Counts
from tests.support.engines import Loaded
from tests.support.redis import redis

BLOCK = b"data: " + b"x" * 200 + b"\n\n"
TASKS = 512
"""Publishers that wait for an answer at a time."""


def _settings(url: str) -> Settings:
    engine = {"kind": "redis", "url": url, "timeout": 30}
    return Settings(from_mapping({"engine": engine, "auth": {"mode": "none"}}))


async def publish(url: str, sessions: int, count: int, tasks: int) -> None:
    """Publish events, and print how long that took, and the CPU time."""
    engine = RedisEngine(_settings(url), Counts())
    left = iter(range(count))
    waits: list[float] = []

    async def work() -> None:
        for number in left:
            began = time.perf_counter()
            await engine.publish(f"s{number % sessions}", [EncodedEvent(BLOCK)])
            waits.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load(Loaded())
        began, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as working:
            for _ in range(tasks):
                working.start_soon(work)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        nursery.cancel_scope.cancel()
    waits.sort()
    _say(
        {
            "events_per_s": round(count / seconds),
            "publisher_us": round(cpu / count * 1e6, 1),
            "median_ms": round(waits[count // 2] * 1e3, 2),
        }
    )


async def follow(url: str, sessions: int, count: int) -> None:
    """Have all sessions in logs; print what an event took once all have come."""
    settings = _settings(url)
    engine = RedisEngine(settings, Counts())
    hub = Hub(settings, engine=engine)
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        await nursery.start(engine.run)
        await engine.load(Loaded())
        followed: list[Session] = []
        for number in range(sessions):
            session = hub.open(f"s{number}")
            await session.ready()
            followed.append(session)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        cpu = time.process_time()
        while hub.counts.events < count:  # noqa: ASYNC110 (looked at seldom, to cost nothing)
            await trio.sleep(0.2)
        cpu = time.process_time() - cpu
        nursery.cancel_scope.cancel()
    _say({"events": hub.counts.events, "foreign_us": round(cpu / count * 1e6, 1)})


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--publish")
    parser.add_argument("--follow")
    parser.add_argument("--tasks", type=int, default=TASKS)
    given = parser.parse_args()
    if given.publish:
        trio.run(publish, given.publish, given.sessions, given.events, given.tasks)
        return
    if given.follow:
        trio.run(follow, given.follow, given.sessions, given.events)
        return
    me = [sys.executable, "-m", "tests.performance.shared_engine"]
    size = [
        "--sessions",
        str(given.sessions),
        "--events",
        str(given.events),
        "--tasks",
        str(given.tasks),
    ]
    with redis() as server:
        with subprocess.Popen([*me, "--follow", server.url, *size], stdout=subprocess.PIPE) as node:
            assert node.stdout is not None
            while node.stdout.readline() not in {b"ready\n", b""}:
                pass  # what it logs
            before = _cpu_us(server.ask("INFO", "cpu"))
            subprocess.run([*me, "--publish", server.url, *size], check=True)
            sys.stdout.write(node.stdout.read().decode())
            after = _cpu_us(server.ask("INFO", "cpu"))
        memory = int(server.ask("INFO", "memory").split("used_memory:")[1].split()[0])
        kept = min(given.events, given.sessions * 500)
        _say(
            {
                "redis_us": round((after - before) / given.events, 1),
                "redis_bytes_per_kept_event": round(memory / kept),
            }
        )


def _say(figures: dict[str, float]) -> None:
    sys.stdout.write(f"{json.dumps(figures)}\n")


def _cpu_us(info: str) -> float:
    figures = dict(line.partition(":")[::2] for line in info.splitlines())
    return (float(figures["used_cpu_user"]) + float(figures["used_cpu_sys"])) * 1e6


if __name__ == "__main__":
    main()
