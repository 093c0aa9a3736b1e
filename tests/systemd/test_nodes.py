"""Two nodes of one machine at one address, set up as docs/systemd.md says, on a real Redis.

The kernel decides which of them a connection gets to.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest

from broadcasterd.observe.messages import MESSAGE_IDS
from tests.support.container import SOON_S, Container, until
from tests.support.documents import shell_of
from tests.support.redis import Redis, free_port, redis
from tests.support.service import PORT, PROJECT, Listener, Service

DOCUMENT = PROJECT / "docs/systemd.md"
HEADING = "Two cores, one address"
INSTALLED = "usr/share/doc/broadcasterd"
COPY = "srv/nodes"
"""Where the commands are run: what is installed, with other addresses."""

OPEN = '\n[auth]\nmode = "none"\n\n[memory]\nsample_interval = 0.2\n'
MANY = 64
"""Connections of which the kernel gives no node all, but once in as many years."""


@dataclass
class Nodes:
    """The two, at one address."""

    first: Service
    second: Service

    @property
    def both(self) -> tuple[Service, Service]:
        """Both of them."""
        return self.first, self.second

    def subscribers(self, node: Service) -> int:
        """Return how many streams a node has, asked at its own address."""
        answer = httpx.get(f"http://{node.host}:{own_port(node)}/health", timeout=SOON_S)
        streams: int = answer.json()["subscribers"]
        return streams

    def until_nobody_listens(self) -> None:
        """Wait until the nodes have noticed that the streams of others are closed."""
        until(lambda: not any(map(self.subscribers, self.both)))

    def listening_at_both(self, session: str, stack: ExitStack) -> dict[str, list[Listener]]:
        """Listen at the one address until both have streams; return each node's, by its unit."""
        self.until_nobody_listens()
        streams: dict[str, list[Listener]] = {node.unit: [] for node in self.both}
        while not all(streams.values()):
            before = [self.subscribers(node) for node in self.both]
            listener = stack.enter_context(self.first.listening(session))
            after = [self.subscribers(node) for node in self.both]
            [node] = [
                node
                for node, was, is_now in zip(self.both, before, after, strict=True)
                if is_now > was
            ]
            streams[node.unit].append(listener)

            assert sum(map(len, streams.values())) < MANY
        return streams


def own_port(node: Service) -> int:
    """Return the port that is a node's own."""
    return PORT + int(node.name[-1])


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Run a Redis on a port: the machine's network is the container's."""
    with redis(port=free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def nodes(machine: Container, server: Redis) -> Iterator[Nodes]:
    """Set two nodes up by the commands of the page, at an address that nobody else uses."""
    nodes = Nodes(*(Service(machine, f"broadcasterd@{number}") for number in (1, 2)))
    nodes.second.host = nodes.first.host
    source = machine.root / INSTALLED
    copy = machine.root / COPY
    subprocess.run(["cp", "--recursive", "--dereference", source, copy], check=True)
    for name, old, new in (
        ("node.socket.conf", "127.0.0.1", nodes.first.host),
        ("node.toml", "redis://127.0.0.1:6379", server.url),
    ):
        file = copy / "config" / name
        text = file.read_text()

        assert old in text
        file.write_text(text.replace(old, new) + (OPEN if name == "node.toml" else ""))
    commands = shell_of(DOCUMENT, HEADING).replace("sudo ", "")
    try:
        machine.run("bash", "-euc", f"cd /{COPY}\n{commands}")
        yield nodes
    finally:
        units = [unit for node in nodes.both for unit in (node.socket, node.unit)]
        machine.run("systemctl", "disable", "--now", *units, check=False)
        drop_ins = [f"/etc/systemd/system/{node.socket}.d" for node in nodes.both]
        links = [f"/etc/broadcasterd/{n}.{what}" for n in (1, 2) for what in ("toml", "secret")]
        machine.run("rm", "-rf", f"/{COPY}", "/etc/broadcasterd/node.toml", *drop_ins, *links)
        machine.run("systemctl", "daemon-reload")


def test_what_is_published_at_one_is_heard_at_the_other(nodes: Nodes) -> None:
    with ExitStack() as stack:
        streams = nodes.listening_at_both("a", stack)
        for node in nodes.both:
            url = f"http://{node.host}:{own_port(node)}/v1/sessions/a/events"
            httpx.post(url, json={"data": node.name}, timeout=SOON_S).raise_for_status()
        ids = {
            tuple(listener.until(node.name).id for node in nodes.both)
            for listeners in streams.values()
            for listener in listeners
        }

    assert len(ids) == 1, "one order, one id"
    for node in nodes.both:
        handed = nodes.first.container.root / f"run/credentials/{node.unit}/secret"
        assert (
            handed.read_text()
            == (nodes.first.container.root / "etc/broadcasterd/secret").read_text()
        )


def test_a_deployment_of_one_after_the_other_closes_no_stream(nodes: Nodes) -> None:
    with ExitStack() as stack:
        streams = nodes.listening_at_both("b", stack)
        for node in nodes.both:
            nodes.first.publish("b", f"before {node.name}")
            node.restart()
            nodes.first.publish("b", f"after {node.name}")
        expected = [f"{when} {node.name}" for node in nodes.both for when in ("before", "after")]
        for listeners in streams.values():
            for listener in listeners:
                listener.until(expected[-1])

                assert expected == [event.data for event in listener.events]
        for node in nodes.both:
            [taken_up] = node.container.journal(
                f"--unit={node.unit}", f"MESSAGE_ID={MESSAGE_IDS['handover taken up']}"
            )

            assert "0" == taken_up["LOST_STREAMS"]
            assert int(taken_up["STREAMS"]) == len(streams[node.unit])


def test_the_clients_of_one_that_is_killed_come_back_and_miss_nothing(nodes: Nodes) -> None:
    with ExitStack() as stack:
        streams = nodes.listening_at_both("c", stack)
        first = nodes.first.publish("c", "a")["first_id"]
        pid = nodes.first.pid
        nodes.first.kill("KILL")
        for listener in streams[nodes.first.unit]:
            assert listener.is_over()
        second = f"http://{nodes.second.host}:{own_port(nodes.second)}/v1/sessions/c/events"
        httpx.post(second, json={"data": "b"}, timeout=SOON_S).raise_for_status()
        for listener in streams[nodes.second.unit]:
            listener.until("b")
        # Whoever gets to the socket of the one that is gone waits for its next process.
        for _ in range(10):
            page = nodes.first.page("c", last_event_id=first)

            assert "gap" not in page
            assert ["b"] == [event["data"] for event in page["events"]]
        nodes.first.until_restarted(pid)


def test_one_whose_socket_is_stopped_leaves_all_connections_to_the_other(nodes: Nodes) -> None:
    machine = nodes.first.container
    nodes.until_nobody_listens()
    machine.run("systemctl", "stop", nodes.first.socket, nodes.first.unit)
    try:
        with ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(nodes.first.listening("d"))

            assert 10 == nodes.subscribers(nodes.second)
    finally:
        machine.run("systemctl", "start", nodes.first.socket, nodes.first.unit)
