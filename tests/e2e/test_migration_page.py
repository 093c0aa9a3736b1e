"""docs/migration.md: every old name has its new one there, and its programs run as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from broadcasterd import former_names
from broadcasterd.client import AsyncClient, Client
from tests.support.daemon import Daemon, StartDaemon
from tests.support.documents import listings_of
from tests.support.tools import require

PAGE = Path(__file__).parents[2] / "docs/migration.md"
PUBLISH, BOTH = listings_of(PAGE, "python")

OLD, NEW = "http://127.0.0.1:9000", "http://127.0.0.1:8000"


def retained(daemon: Daemon, session: str) -> list[tuple[str, str]]:
    """Return name and data of each event of a session."""
    page = httpx.get(daemon.session(session), headers={"Accept": "application/json"}).json()
    return [(event["event"], event["data"]) for event in page["events"]]


@pytest.mark.parametrize("names", [former_names.KEYS, former_names.VARIABLES], ids=["keys", "env"])
def test_every_old_name_stands_beside_its_new_one(names: dict[str, str]) -> None:
    rows = [row for row in PAGE.read_text().splitlines() if row.startswith("| ")]

    for old, new in names.items():
        setting = new.removeprefix("BROADCASTERD_").lower().replace("__", ".")
        assert any(f"`{old}`" in row and f"`{setting}`" in row for row in rows), old


def test_a_publisher_runs_as_it_is(daemon: Daemon) -> None:
    program = PUBLISH.replace(NEW, daemon.url)
    environment = {**os.environ, "BROADCASTERD_TOKEN": "t0"}
    out = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)

    assert "nobody listens\n" == out
    assert [("agent_start", '{"agent":"planner"}')] == retained(daemon, "run-7")


async def test_both_tells_the_daemon_and_does_not_depend_on_it(daemon: Daemon) -> None:
    class Old:
        async def broadcast_event(self, session: str, event: dict[str, object]) -> None:
            told.append((session, event))

    told: list[tuple[str, dict[str, object]]] = []
    logged: list[str] = []
    names: dict[str, Any] = {}
    exec(BOTH, names)  # noqa: S102 (it is the page's)
    event: dict[str, object] = {"type": "agent_start", "data": {"agent": "planner"}}

    async with AsyncClient(daemon.url, retry_for=0) as client:
        both = names["Both"](Old(), client, logged.append)
        await both.broadcast_event("s", event)
        before = retained(daemon, "s")
        daemon.stop()
        await both.broadcast_event("s", event)

    assert [("s", event)] * 2 == told
    assert [("agent_start", '{"agent":"planner"}')] == before
    assert ["Connection refused"] == [line.rpartition(": ")[2] for line in logged]


def test_a_stream_is_relayed_as_the_page_says(daemon: Daemon, start_daemon: StartDaemon) -> None:
    require("curl")
    old = start_daemon()
    [relay] = listings_of(PAGE, "sh")
    events = [{"data": "1", "event": "agent_start"}, {"data": {"n": 2}}]
    httpx.post(old.session("run-7"), json=events).raise_for_status()
    process = subprocess.Popen(
        ["sh", "-c", relay.replace(OLD, old.url).replace(NEW, daemon.url)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        with Client(daemon.url) as client, client.subscribe("run-7") as relayed:
            seen = [(event.event, event.data) for event in islice(relayed, 2)]
        httpx.delete(f"{old.url}/v1/sessions/run-7").raise_for_status()
        answer, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()

    assert [("agent_start", "1"), ("message", '{"n":2}')] == seen == retained(daemon, "run-7")
    assert 2 == json.loads(answer)["accepted"]
