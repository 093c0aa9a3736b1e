"""What the benchmark has each server do, by name: publishes here, subscribers in their own file.

A scenario is given a server's kind and a directory, starts the server anew, and yields figures by
name; figures.py says what each is. CPU is that of the server, with all of its processes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.performance import scenarios_subscribers as subscribers
from tests.performance.counting import counting_us
from tests.performance.latency import alone
from tests.performance.posts import Posted, post, request, warm_up
from tests.performance.processes import Broken
from tests.performance.server_process import Server
from tests.performance.servers import Kind
from tests.performance.size import EVENT_BYTES, Size
from tests.support.tokens import claims, sign

ARRAY_EVENTS = 100
TEXT = "x" * EVENT_BYTES

Run = Callable[[Kind, Size, Path], subscribers.Figures]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One line of `bench.py --list`."""

    about: str
    run: Run
    is_heavy: bool = False  # takes a server longer than a few seconds: one round has to do


def publish(kind: Kind, size: Size, directory: Path) -> subscribers.Figures:
    """Post to a session of one subscriber, to many such, and many events at once to nobody."""
    with kind.serving(directory) as server:
        for name, sessions in (("post", 1), ("post_sessions", size.sessions)):
            posted, cpu_s = _post_and_see_all(kind, server, size, directory, sessions)
            yield {
                f"{name}_us": cpu_s / posted.requests * 1e6,
                f"{name}_per_s": posted.requests / posted.seconds,
            }
        if kind.is_ours:
            answer_ms, delivery_ms = alone(
                server, "alone", request("alone", *_event(kind)), size.posts_alone
            )
            yield {"alone_answer_ms": answer_ms, "alone_delivery_ms": delivery_ms}
        if kind.counts:
            yield {"counting_us": counting_us()}
        if kind.takes_many:
            event = json.dumps({"data": TEXT})
            array = f"[{','.join([event] * ARRAY_EVENTS)}]"
            ndjson = f"{event}\n" * size.ndjson_lines
            for name, events, body, content_type in (
                ("array", ARRAY_EVENTS, array, "application/json"),
                ("ndjson", size.ndjson_lines, ndjson, "application/x-ndjson"),
            ):
                requests = [request("nobody", body, content_type)]
                posted, cpu_s = _measured(server, requests, directory, size.post_s)
                yield {
                    f"{name}_event_us": cpu_s / (posted.requests * events) * 1e6,
                    f"{name}_events_per_s": posted.requests * events / posted.seconds,
                }


def publish_with_token(kind: Kind, size: Size, directory: Path) -> subscribers.Figures:
    """Post with one token, to nobody: beside it, without."""
    if kind.with_tokens is None:
        return
    token = sign(claims(publish=("*",)))
    requests = [request("nobody", *_event(kind), token=token)]
    for name, each in (("post_nobody_us", kind), ("post_token_us", kind.with_tokens)):
        with each.serving(directory) as server:
            posted, cpu_s = _measured(server, requests, directory, size.post_s)
            yield {name: cpu_s / posted.requests * 1e6}


def connect(kind: Kind, size: Size, directory: Path) -> subscribers.Figures:
    """Connect, post, close; over and over."""
    requests = [request("nobody", *_event(kind), fresh=True)]
    with kind.serving(directory) as server:
        warm_up(server, requests, fresh=True)
        cpu_s = server.cpu_s()
        posted = post(server, requests, directory, seconds=size.post_s, fresh=True)
        cpu_s = server.cpu_s() - cpu_s
    yield {
        "connect_us": cpu_s / posted.requests * 1e6,
        "connect_per_s": posted.requests / posted.seconds,
        "connect_failures": posted.failures,
    }


def _event(kind: Kind) -> tuple[str, str]:
    """Return a body with one event, and the type of the body."""
    if kind.body == "text":
        return TEXT, "text/plain"
    return json.dumps({"data": TEXT}), "application/json"


def _post_and_see_all(
    kind: Kind, server: Server, size: Size, directory: Path, sessions: int
) -> tuple[Posted, float]:
    """Post to so many sessions in turn, each with a subscriber that has to get every event."""
    prefix = f"of{sessions}-"
    names = [f"{prefix}{turn}" if sessions > 1 else prefix for turn in range(sessions)]
    requests = [request(name, *_event(kind)) for name in names]
    with kind.loading(server) as load:
        load.do("open", session=prefix, count=sessions, spread=sessions)
        load.begin("drain")
        warm = warm_up(server, requests)
        cpu_s = server.cpu_s()
        posted = post(server, requests, directory, seconds=size.post_s)
        cpu_s = server.cpu_s() - cpu_s
        answered = warm.requests + posted.requests
        load.write_line(str(answered))
        delivered = load.finish("drain")["events"]
    if warm.failures or posted.failures or delivered < answered:
        raise Broken(
            f"{answered} publishes were answered, {warm.failures + posted.failures} failed,"
            f" {delivered} were delivered"
        )
    return posted, cpu_s


def _measured(
    server: Server, requests: list[str], directory: Path, seconds: float
) -> tuple[Posted, float]:
    """Post for so long; return what came of it, and the CPU time."""
    warm_up(server, requests)
    cpu_s = server.cpu_s()
    posted = post(server, requests, directory, seconds=seconds)
    if posted.failures or not posted.requests:
        raise Broken(f"{posted.failures} publishes failed, {posted.requests} were answered")
    return posted, server.cpu_s() - cpu_s


SCENARIOS: Mapping[str, Scenario] = {
    "publish": Scenario("publishes over kept connections", publish),
    "token": Scenario("publishes with a token", publish_with_token),
    "connect": Scenario("new connections: connect, post, close", connect),
    "subscribe": Scenario("subscribes, and what a subscriber takes", subscribers.subscribe),
    "deliver": Scenario("deliveries at 100 and 1,000 subscribers", subscribers.deliver),
    "crowd": Scenario("deliveries at 5,000 and more", subscribers.crowd, is_heavy=True),
    "sessions": Scenario("deliveries to 10,000 sessions", subscribers.sessions, is_heavy=True),
    "storm": Scenario("10,000 clients that come back", subscribers.storm, is_heavy=True),
    "health": Scenario("/health while 5,000 are served", subscribers.health, is_heavy=True),
}
