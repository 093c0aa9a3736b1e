"""Two daemons on one Redis, as processes, with a real nginx in front: what clients notice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import h11
import pytest
import trio

from tests.support.daemon import Daemon, Launch
from tests.support.http1 import Http1
from tests.support.redis import free_port, redis
from tests.support.talk import JSON, ask, eventually, target
from tests.support.tools import ROOT, require

SITE = ROOT / "config/proxies/nginx-nodes.conf"
EXAMPLE = ROOT / "config/node.toml"

MAIN = """
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
worker_processes 1;
events {{ worker_connections 500; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""


@dataclass
class Nginx:
    """nginx with the site that is shipped, at other addresses."""

    process: subprocess.Popen[bytes]
    directory: Path
    port: int

    def reload(self) -> None:
        """Have it read its files anew: other workers take over."""
        os.kill(self.process.pid, signal.SIGHUP)

    @property
    def workers(self) -> set[str]:
        """The process ids of its workers."""
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@contextmanager
def nginx(directory: Path, *nodes: int) -> Iterator[Nginx]:
    """Run it before nodes at these ports while inside."""
    port = free_port()
    site = SITE.read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    for before, node in zip((8001, 8002), nodes, strict=True):
        site, count = re.subn(rf"127\.0\.0\.1:{before}\b", f"127.0.0.1:{node}", site)
        assert count == 1
    (directory / "site.conf").write_text(site)
    (directory / "nginx.conf").write_text(MAIN.format(directory=directory))
    command = [require("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")]
    process = subprocess.Popen([*command, "-e", str(directory / "error.log")])
    try:
        yield Nginx(process, directory, port)
    finally:
        process.terminate()
        process.wait()


@dataclass
class Client:
    """Listens as an EventSource does: whenever it is cut, it comes back with its last id."""

    session: str
    data: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    cursor: str = ""
    connections: int = 0

    async def listen(self, at: Nginx) -> None:
        """Listen until cancelled."""
        while True:
            with suppress(
                OSError, trio.BrokenResourceError, h11.RemoteProtocolError, AssertionError
            ):
                await self._listen(at)
            await trio.sleep(0.05)

    async def _listen(self, at: Nginx) -> None:
        headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
        async with await trio.open_tcp_stream("127.0.0.1", at.port) as stream:
            following = await Http1(stream).follow(target(self.session), headers)
            self.connections += 1
            while (event := await following.event(within=60)) is not None:
                self.cursor = event.id or self.cursor
                (self.data if event.type == "message" else self.others).append(event.data)


async def publish(at: Nginx, session: str, data: str) -> None:
    """Publish an event, again and again until it is answered 200."""
    body = json.dumps({"data": data, "idempotency_key": data}).encode()

    async def is_taken() -> bool:
        try:
            return (await ask(at, "POST", target(session), JSON, body)).status == 200
        except (OSError, trio.BrokenResourceError):
            return False

    await eventually(is_taken)


@pytest.mark.slow
async def test_a_node_is_killed_and_nginx_reloads_and_clients_miss_and_repeat_nothing(
    tmp_path: Path, launch: Launch
) -> None:
    clients = [Client("s") for _ in range(6)]
    published: list[str] = []
    with redis() as server:
        daemons: list[Daemon] = []
        try:
            for number in (1, 2):
                directory = tmp_path / f"{number}"
                directory.mkdir()
                engine = {"kind": "redis", "url": server.url}
                daemons.append(Daemon.start(directory, launch, engine=engine))
            (tmp_path / "nginx").mkdir()
            with nginx(tmp_path / "nginx", *(each.port for each in daemons)) as front:

                async def publish_some() -> None:
                    for _ in range(20):
                        published.append(f"{len(published)}")
                        await publish(front, "s", published[-1])

                async def all_have_all() -> None:
                    async def is_so() -> bool:
                        return all(len(each.data) >= len(published) for each in clients)

                    await eventually(is_so)

                async with trio.open_nursery() as nursery:
                    await publish_some()
                    for client in clients:
                        nursery.start_soon(client.listen, front)
                    await all_have_all()

                    before = front.workers
                    front.reload()

                    async def has_reloaded() -> bool:
                        return bool(front.workers - before)

                    await eventually(has_reloaded)
                    await publish_some()
                    await all_have_all()
                    stayed = [client.connections for client in clients]

                    daemons[0].process.kill()
                    await publish_some()
                    await all_have_all()
                    nursery.cancel_scope.cancel()
        finally:
            for daemon in daemons:
                daemon.kill()

    assert stayed == [1] * 6
    for client in clients:
        assert client.data == published
        assert not client.others
    assert {client.connections for client in clients} == {1, 2}


def test_the_example_of_a_node_can_be_used() -> None:
    done = subprocess.run(
        [require(".venv/bin/broadcasterd"), "check-config", "--config", str(EXAMPLE)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BROADCASTERD_AUTH__SECRET": "x" * 32},
    )

    assert done.returncode == 0, done.stdout + done.stderr
