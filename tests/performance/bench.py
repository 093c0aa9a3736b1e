"""Measure what a delivery, a subscriber and a subscribe cost: `bench.py [--quick] [--json]`.

Four servers take the same load in turn (KINDS); the load generator is a process of its own.
The output is figures with the targets beside them, never a verdict: machines differ, and so does
what else runs on them. The exit status is 1 only when something broke; a lost, doubled or altered
event is that.
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Run as a file, so that it needs no more than a path; the modules beside it are named as the tests
# name theirs.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.performance.figures import Figures, Health, comparison, health_table
from tests.performance.processes import Broken, HealthPoller, Load, Server

KINDS = {
    "bare": "bare write loop",
    "plain": "plain Quart-Trio",
    "ordinary": "not taken over",
    "taken-over": "taken over",
}
EVENT_BYTES = 200
# Opened and closed first, so that imports, caches and the transient peak of the subscribes in
# flight are not counted; then as many are opened again before the measurement begins, so that the
# memory which the first batch left behind is in use.
WARM_UP = 64
WARM_UP_EVENTS = 20
SETTLE_S = 1.0  # after each phase, until its last tasks have ended


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much load; the rates leave each server time, else it joins events and looks cheaper."""

    subscribers: int
    events: int
    rate: float  # events/s
    burst_events: int
    crowd: int  # subscribers while /health is polled
    crowd_events: int
    crowd_rate: float  # events/s


FULL = Size(
    subscribers=1000,
    events=100,
    rate=4,
    burst_events=50,
    crowd=5000,
    crowd_events=60,
    crowd_rate=6,
)
QUICK = Size(
    subscribers=200,
    events=20,
    rate=10,
    burst_events=20,
    crowd=1000,
    crowd_events=20,
    crowd_rate=10,
)


def publish(load: Load, session: str, events: int, rate: float) -> dict[str, Any]:
    """Publish to everybody who is subscribed; a lost event is a broken server."""
    seen = load.do("publish", session=session, events=events, size=EVENT_BYTES, rate=rate)
    if seen["errors"]:
        raise Broken("; ".join(seen["errors"]))
    return seen


def warm_up(load: Load) -> None:
    """Let the server import, allocate and cache what it needs only once."""
    load.do("open", session="warm-up", count=WARM_UP)
    publish(load, "warm-up", WARM_UP_EVENTS, 0)
    load.do("close")
    time.sleep(SETTLE_S)


def measure(kind: str, size: Size) -> Figures:
    """Put one kind of server under load and see what it cost."""
    with Server(kind) as server, Load(server.port) as load:
        warm_up(load)

        cpu_s = server.cpu_s()
        publish(load, "nobody", size.events, 0)
        publish_s = server.cpu_s() - cpu_s

        load.do("open", session="bench", count=WARM_UP)
        time.sleep(SETTLE_S)
        rss_kb, cpu_s = server.rss_kb(), server.cpu_s()
        added = size.subscribers - WARM_UP
        load.do("open", session="bench", count=added)
        time.sleep(SETTLE_S)
        rss_kb, subscribe_s = server.rss_kb() - rss_kb, server.cpu_s() - cpu_s

        cpu_s = server.cpu_s()
        steady = publish(load, "bench", size.events, size.rate)
        steady_s = server.cpu_s() - cpu_s
        cpu_s = server.cpu_s()
        burst = publish(load, "bench", size.burst_events, 0)
        burst_s = server.cpu_s() - cpu_s
    return Figures(
        delivery_us=steady_s / steady["deliveries"] * 1e6,
        burst_delivery_us=burst_s / burst["deliveries"] * 1e6,
        burst_events_per_read=burst["deliveries"] / burst["reads"],
        subscriber_kb=rss_kb / added,
        subscribe_us=subscribe_s / added * 1e6,
        publish_us=publish_s / size.events * 1e6,
        latency_p50_ms=steady["p50_ms"],
        latency_p99_ms=steady["p99_ms"],
        late_ms=steady["late_ms"],
    )


def measure_health(kind: str, size: Size) -> Health:
    """See how a server that is busy with a crowd answers GET /health."""
    with Server(kind) as server, Load(server.port) as load:
        warm_up(load)
        with HealthPoller(server.port) as poller:
            load.do("open", session="crowd", count=size.crowd)
            opening = poller.finish()
        time.sleep(SETTLE_S)
        with HealthPoller(server.port) as poller:
            cpu_s = server.cpu_s()
            fan_out = publish(load, "crowd", size.crowd_events, size.crowd_rate)
            cpu_s = server.cpu_s() - cpu_s
            fan_out_health = poller.finish()
    return Health(
        subscribers=size.crowd,
        opening=opening,
        fan_out=fan_out_health,
        delivery_us=cpu_s / fan_out["deliveries"] * 1e6,
        latency_p50_ms=fan_out["p50_ms"],
        latency_p99_ms=fan_out["p99_ms"],
    )


def machine() -> dict[str, Any]:
    """Name what the figures depend on."""
    packages = ("trio", "hypercorn", "quart-trio")
    return {
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def report(size: Size, measured: dict[str, Figures], health: Health | None) -> None:
    """Print the figures for a reader."""
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    print(
        f"{size.subscribers} subscribers, {EVENT_BYTES}-byte events, loopback; CPU and RSS are the"
    )
    print(f"server's. {size.events} events at {size.rate}/s, then a burst of {size.burst_events}.")
    print(f"Machine: {about}\n")
    print(comparison(KINDS, measured))
    if health is not None:
        print(f"\nTaken over, {health.subscribers} subscribers, /health polled meanwhile;")
        print(f"{size.crowd_events} events at {size.crowd_rate}/s.\n")
        print(health_table(health))
        print(
            f"\nDelivery: {health.delivery_us:.1f} µs CPU (the polls included), "
            f"p50 {health.latency_p50_ms:.1f} ms, p99 {health.latency_p99_ms:.1f} ms."
        )
    print("\nThe targets are for a quiet machine. The bare write loop is what the kernel and the")
    print("interpreter ask of any Python server here: judge by the distance to it.")


def main() -> int:
    """Measure each kind in turn; answer the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer subscribers, fewer events")
    parser.add_argument("--json", action="store_true", help="write JSON instead of tables")
    parser.add_argument(
        "--kind", action="append", choices=KINDS, help="only this kind (repeatable)"
    )
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL

    measured: dict[str, Figures] = {}
    health: Health | None = None
    broken: list[str] = []
    for kind in arguments.kind or KINDS:
        print(f"measuring: {KINDS[kind]}", file=sys.stderr)
        try:
            measured[kind] = measure(kind, size)
            if kind == "taken-over":
                print(f"measuring: /health among {size.crowd} subscribers", file=sys.stderr)
                health = measure_health(kind, size)
        except Broken as reason:
            broken.append(f"{KINDS[kind]}: {reason}")

    if arguments.json:
        document = {
            "machine": machine(),
            "size": asdict(size),
            "kinds": {kind: asdict(figures) for kind, figures in measured.items()},
            "health": asdict(health) if health else None,
            "broken": broken,
        }
        print(json.dumps(document, indent=2))
    else:
        report(size, measured, health)
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
