"""What the benchmark has each server do for subscribers; see scenarios.py."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.performance.cores import LOAD_CORE, on_core
from tests.performance.processes import Broken, HealthPoller, Load
from tests.performance.server_process import Server
from tests.performance.servers import Kind
from tests.performance.size import EVENT_BYTES, Size, Steady

# Opened and closed first, so that imports, caches and the transient peak of the subscribes in
# flight are not counted; then as many are opened again before the measurement begins, so that the
# memory which the first batch left behind is in use.
WARM_UP = 64
WARM_UP_EVENTS = 20
SETTLE_S = 0.3  # after each phase, until its last tasks have ended
STORM_WINDOW = 1024  # clients that come back at once; backlogs of listeners are 4096
BEFORE_STORM_S = 0.2  # live deliveries without a storm

Figures = Iterator[Mapping[str, float]]


def subscribe(kind: Kind, size: Size, directory: Path) -> Figures:
    """Open so many subscribers to one session."""
    with _warm(kind, directory) as (server, load):
        load.do("open", session="bench", count=WARM_UP)
        time.sleep(SETTLE_S)
        rss_kb, cpu_s = server.rss_kb(), server.cpu_s()
        opened = load.do("open", session="bench", count=size.subscribes)
        time.sleep(SETTLE_S)
        rss_kb, cpu_s = server.rss_kb() - rss_kb, server.cpu_s() - cpu_s
    yield {
        "subscribe_us": cpu_s / size.subscribes * 1e6,
        "subscribes_per_s": size.subscribes / opened["seconds"],
        "subscriber_kb": rss_kb / size.subscribes,
    }


def deliver(kind: Kind, size: Size, directory: Path) -> Figures:
    """Publish to few, one event a POST: at a steady rate, and as fast as it is answered."""
    with _warm(kind, directory) as (server, load):
        for steady in size.few:
            yield _delivered(server, load, steady)
        burst = replace(size.few[0], rate=0)
        load.do("open", session="burst", count=burst.subscribers)
        cpu_s = server.cpu_s()
        seen = _publish(load, "burst", burst)
        cpu_s = server.cpu_s() - cpu_s
    yield {
        f"burst_{burst.subscribers}_us": cpu_s / seen["deliveries"] * 1e6,
        f"burst_{burst.subscribers}_joined": seen["deliveries"] / seen["reads"],
    }


def crowd(kind: Kind, size: Size, directory: Path) -> Figures:
    """Publish to many."""
    with _warm(kind, directory) as (server, load):
        for steady in size.crowds:
            yield _delivered(server, load, steady)


def sessions(kind: Kind, size: Size, directory: Path) -> Figures:
    """Publish one event to each of many sessions of one subscriber, as fast as it is answered."""
    each = Steady(subscribers=size.one_each, events=size.one_each, rate=0)
    with _warm(kind, directory) as (server, load):
        load.do("open", session="one-of-", count=size.one_each, spread=size.one_each)
        cpu_s = server.cpu_s()
        seen = _publish(load, "one-of-", each, spread=size.one_each)
        cpu_s = server.cpu_s() - cpu_s
    yield {
        "one_each_us": cpu_s / seen["deliveries"] * 1e6,
        "one_each_p99_ms": seen["p99_ms"],
    }


def storm(kind: Kind, size: Size, directory: Path) -> Figures:
    """Cut many clients, who come back at once, while events are delivered to others."""
    with _warm(kind, directory) as (server, load), kind.loading(server) as live:
        load.do("open", session="storm", count=size.storm)
        _publish(load, "storm", Steady(subscribers=size.storm, events=1, rate=0))
        live.do("open", session="live", count=size.live.subscribers)
        time.sleep(SETTLE_S)
        cpu_s = server.cpu_s()
        live.begin(
            "publish",
            session="live",
            events=size.live.events,
            size=EVENT_BYTES,
            rate=size.live.rate,
        )
        time.sleep(BEFORE_STORM_S)
        storm = load.do("reconnect", window=STORM_WINDOW)
        back_cpu_s = server.cpu_s() - cpu_s
        seen = live.finish("publish")
        if seen["errors"]:
            raise Broken("; ".join(seen["errors"]))
        during = live.do("latency", since_s=storm["began_s"], until_s=storm["ended_s"])
        # The others must not have been given up for those who live.
        _publish(load, "storm", Steady(subscribers=size.storm, events=1, rate=0))
    yield {
        "storm_s": storm["ended_s"] - storm["began_s"],
        "storm_us": back_cpu_s / size.storm * 1e6,
        "storm_live_p99_ms": during["p99_ms"],
    }


def health(kind: Kind, size: Size, directory: Path) -> Figures:
    """Ask GET /health, and GET /stats where there is one, while a crowd gets events."""
    with _warm(kind, directory) as (server, load):
        load.do("open", session="crowd", count=size.health.subscribers)
        time.sleep(SETTLE_S)
        polled, rate = _polled(server, load, size.health, "/health")
        yield {
            "health_p50_ms": polled["p50_ms"],
            "health_p99_ms": polled["p99_ms"],
            "health_events_per_s": rate,
        }
        try:
            polled, _ = _polled(server, load, size.health, "/stats")
        except Broken:  # other servers have none
            return
        yield {"stats_p50_ms": polled["p50_ms"], "stats_p99_ms": polled["p99_ms"]}


def _polled(
    server: Server, load: Load, events: Steady, path: str
) -> tuple[Mapping[str, float], float]:
    """Return the latencies of new connections meanwhile, and the events/s that the load came to."""
    with on_core(LOAD_CORE):
        poller = HealthPoller(server.port, path=path)
    with poller:
        seen = _publish(load, "crowd", events)
        return poller.finish()["new"], events.events / seen["seconds"]


@contextmanager
def _warm(kind: Kind, directory: Path) -> Iterator[tuple[Server, Load]]:
    """Start a server and its load, and let it import, allocate and cache what it needs once."""
    with kind.serving(directory) as server, kind.loading(server) as load:
        load.do("open", session="warm-up", count=WARM_UP)
        _publish(load, "warm-up", Steady(subscribers=WARM_UP, events=WARM_UP_EVENTS, rate=0))
        load.do("close")
        time.sleep(SETTLE_S)
        yield server, load


def _publish(load: Load, session: str, events: Steady, spread: int = 1) -> dict[str, Any]:
    """Publish to everybody who is subscribed; a lost event is a broken server."""
    seen = load.do(
        "publish",
        session=session,
        events=events.events,
        size=EVENT_BYTES,
        rate=events.rate,
        spread=spread,
    )
    if seen["errors"]:
        raise Broken("; ".join(seen["errors"]))
    return seen


def _delivered(server: Server, load: Load, steady: Steady) -> Mapping[str, float]:
    """Publish at a steady rate; return what a delivery costs, its POST included."""
    session = f"of-{steady.subscribers}"  # a new one: a replay would count as lost events
    load.do("open", session=session, count=steady.subscribers)
    time.sleep(SETTLE_S)
    cpu_s = server.cpu_s()
    seen = _publish(load, session, steady)
    cpu_s = server.cpu_s() - cpu_s
    load.do("close")
    return {
        f"deliver_{steady.subscribers}_us": cpu_s / seen["deliveries"] * 1e6,
        f"deliver_{steady.subscribers}_p50_ms": seen["p50_ms"],
        f"deliver_{steady.subscribers}_p99_ms": seen["p99_ms"],
    }
