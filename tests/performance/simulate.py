"""Simulates what happens when a million subscribers lose their nodes: who is back, and when.

Pure: no socket, no clock, and from a seed. What it has of the daemon is the daemon's own: settings
and their defaults, the jitter, the memory of a stream. What a subscribe costs is measured (`make
bench`, docs/performance.md) and given. Of TCP it has the one thing that matters in a storm: where
the backlog is full a connection attempt is dropped, and the client's kernel tries again after 1, 2,
4, 8 s (tcp(7), tcp_syn_retries).

All clients are EventSources (WHATWG HTML §9.2.3): after a cut they wait for the `retry:` that they
were told last, and then connect to any node that lives, as a balancer sends them. A node that is
killed has told all of them the same; one that drains, or that turns a client away, spreads them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from broadcasterd.broadcast.hub import CROWD_SHARE
from broadcasterd.broadcast.subscribers import jittered
from broadcasterd.config import Config
from broadcasterd.memory.breaker import MIB
from broadcasterd.memory.holdings import CONNECTION_BYTES, STREAM_BYTES

STEP_S = 0.01
"""How finely time is cut."""

NOTICE_S = 0.1
"""Clients notice a cut within so long: that is how far away from each other they are."""

FIRST_SYN_TIMEOUT_S = 1.0
LONGEST_S = 600.0
"""Where not all are back after that, something does not hold."""

SUBSCRIBE_US = 290.0
"""CPU time of a subscribe, on a slow machine (docs/performance.md)."""

BUSY_SHARE = 0.5
"""Of a core, for the events that go on meanwhile."""

Retry = Callable[[int, Random], int]
"""Returns what a client is told to wait, in milliseconds, where the settings say so much."""


@dataclass(frozen=True, slots=True)
class Storm:
    """A cut.

    Attributes:
        name: what has happened.
        nodes: how many there are.
        clients: how many each has.
        dead: nodes that do not come back.
        cut: nodes, the dead among them, whose clients lose their connections.

    """

    name: str
    nodes: int
    clients: int
    dead: int
    cut: int


@dataclass(slots=True)
class Outcome:
    """What a storm came to: waits are seconds from the cut until a client is back."""

    waits: list[float] = field(default_factory=list)
    refused: int = 0
    dropped: int = 0
    longest_queue_s: float = 0.0
    most_streams: int = 0
    most_waiting: int = 0
    away: int = 0

    def wait(self, share: float) -> float:
        """Return the wait that so large a share of the clients did not exceed."""
        return self.waits[min(len(self.waits) - 1, int(share * len(self.waits)))]


class Node:
    """A daemon on a core of its own: it takes connections from its backlog, one after the other."""

    __slots__ = ("backlog", "carry", "streams")

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self.backlog: deque[Attempt] = deque()
        self.carry = 0.0  # of what it could have served


class Attempt:
    """A client's attempt to connect: how often that was dropped, and since when it waits where."""

    __slots__ = ("drops", "node", "step")

    node: Node
    step: int

    def __init__(self) -> None:
        self.drops = 0


def all_alike(retry_ms: int, _dice: Random) -> int:
    """Tell every client the same."""
    return retry_ms


def simulate(
    storm: Storm,
    config: Config,
    *,
    cut: Retry,
    seed: int,
    subscribe_us: float = SUBSCRIBE_US,
) -> Outcome:
    """Have a storm blow over; return what it came to.

    Args:
        storm: which.
        config: of each node.
        cut: what clients were told that are cut.
        seed: of all decisions.
        subscribe_us: CPU time of a subscribe, in microseconds.

    """
    dice = Random(seed)  # noqa: S311 (nothing secret)
    blowing = _Blowing(storm, config, dice)
    for _ in range(blowing.away):
        told_s = cut(config.sessions.retry_ms, dice) / 1000
        blowing.comes_in(dice.random() * NOTICE_S + told_s, Attempt())
    per_step = STEP_S * (1 - BUSY_SHARE) / (subscribe_us / 1e6)
    while blowing.away and blowing.step < LONGEST_S / STEP_S:
        blowing.take_a_step(per_step)
    blowing.outcome.away = blowing.away
    return blowing.outcome


class _Blowing:
    """A storm while it blows: time goes step by step, and each node serves what a step allows."""

    def __init__(self, storm: Storm, config: Config, dice: Random) -> None:
        self.step = 0
        self.outcome = Outcome()
        self.away = storm.cut * storm.clients
        self._config = config
        self._dice = dice
        self._nodes = [Node(storm.clients) for _ in range(storm.nodes - storm.dead)]
        for node in self._nodes[: storm.cut - storm.dead]:
            node.streams = 0
        self._coming: defaultdict[int, list[Attempt]] = defaultdict(list)  # by the step

    def comes_in(self, seconds: float, attempt: Attempt) -> None:
        """Have a client attempt to connect in so many seconds."""
        self._coming[self.step + int(seconds / STEP_S)].append(attempt)

    def take_a_step(self, to_serve: float) -> None:
        """Let clients come, and each node serve so many of them."""
        self.step += 1
        for attempt in self._coming.pop(self.step, ()):
            self._arrive(attempt)
        for node in self._nodes:
            if node.backlog:
                self._serve(node, to_serve)
            else:
                node.carry = 0.0

    def _arrive(self, attempt: Attempt) -> None:
        if attempt.drops == 0:
            attempt.node = self._nodes[int(self._dice.random() * len(self._nodes))]
        if len(attempt.node.backlog) < self._config.server.backlog:
            attempt.step = self.step
            attempt.node.backlog.append(attempt)
        else:
            self.outcome.dropped += 1
            self.comes_in(FIRST_SYN_TIMEOUT_S * 2**attempt.drops, attempt)
            attempt.drops += 1

    def _serve(self, node: Node, to_serve: float) -> None:
        outcome, limits = self.outcome, self._config.sessions
        outcome.most_waiting = max(outcome.most_waiting, len(node.backlog))
        node.carry += to_serve
        while node.backlog and node.carry >= 1:
            node.carry -= 1
            attempt = node.backlog.popleft()
            waited_s = (self.step - attempt.step) * STEP_S
            outcome.longest_queue_s = max(outcome.longest_queue_s, waited_s)
            if node.streams < limits.max_subscribers:
                node.streams += 1
                self.away -= 1
                outcome.waits.append(self.step * STEP_S)
            else:
                outcome.refused += 1
                attempt.drops = 0
                self.comes_in(jitter(limits.retry_ms, self._dice) / 1000, attempt)
        outcome.most_streams = max(outcome.most_streams, node.streams)


def storms(nodes: int, clients: int) -> Sequence[Storm]:
    """Return what may happen to so many nodes with so many clients each."""
    third = nodes // 3
    return (
        Storm("one node dies", nodes, clients, dead=1, cut=1),
        Storm("a third of the nodes die", nodes, clients, dead=third, cut=third),
        Storm("the balancer restarts", nodes, clients, dead=0, cut=nodes),
    )


def jitter(retry_ms: int, dice: Random) -> int:
    """Tell a client what the daemon tells it: a time that spreads those that come back."""
    return jittered(retry_ms, lambda below: int(dice.random() * below))


WAYS: Sequence[tuple[str, Retry]] = (("killed", all_alike), ("told to leave", jitter))
"""How nodes lose their clients, and what these were told."""


def megabytes(outcome: Outcome) -> float:
    """Return the most memory that a node counts: for streams, and if all who wait were accepted."""
    size = outcome.most_streams * STREAM_BYTES + outcome.most_waiting * CONNECTION_BYTES
    return size / MIB


def report(storm: Storm, way: str, outcome: Outcome) -> str:
    """Return a line of the table."""
    return (
        f"| {storm.name} | {way} | {outcome.wait(0.5):.1f} | {outcome.wait(0.99):.1f}"
        f" | {outcome.wait(1):.1f} | {outcome.longest_queue_s:.2f} | {outcome.dropped:,}"
        f" | {outcome.refused:,} | {outcome.most_streams:,} | {megabytes(outcome):.0f} |"
    )


def broken(outcome: Outcome, config: Config) -> str:
    """Return which promise did not hold, or nothing."""
    if outcome.away:
        return f"{outcome.away:,} clients are not back"
    if outcome.most_streams > config.sessions.max_subscribers:
        return "more streams than sessions.max_subscribers"
    if megabytes(outcome) > config.memory.critical_mb * CROWD_SHARE:
        return "more memory than clients may take"
    return ""


def write(line: str) -> None:
    """Print a line of the report."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Print the table; fail where a client is not back, or a node takes more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--clients", type=int, default=10_000, help="of each node")
    parser.add_argument("--subscribe-us", type=float, default=SUBSCRIBE_US)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    config = Config()
    began = time.perf_counter()
    write(f"{asked.nodes} nodes, {asked.clients:,} clients each, {asked.subscribe_us:g} µs each\n")
    write("| what | clients are | s p50 | p99 | all | s queue | dropped | refused | streams | MB |")
    write("| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |")
    problems = []
    for storm in storms(asked.nodes, asked.clients):
        for way, cut in WAYS:
            outcome = simulate(
                storm,
                config,
                cut=cut,
                seed=asked.seed,
                subscribe_us=asked.subscribe_us,
            )
            write(report(storm, way, outcome))
            if problem := broken(outcome, config):
                problems.append(f"{storm.name}, {way}: {problem}")
    write(f"\n{time.perf_counter() - began:.0f} s")
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
