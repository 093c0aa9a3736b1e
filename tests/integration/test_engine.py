"""A daemon that keeps its events in a file: over an end, without room to write, and twice."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.daemon import START_S, Daemon, Launch
from tests.support.survivors import Follower

pytestmark = pytest.mark.slow

SOON_S = 20.0


def settings(directory: Path, **sections: Any) -> dict[str, Any]:  # noqa: ANN401 (any settings)
    """Return settings with a file of events in the directory."""
    engine = {"kind": "sqlite", "path": str(directory / "events.sqlite")}
    return {"engine": engine, **sections}


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nobody tells."""
    with trio.fail_after(SOON_S):
        while not holds():  # noqa: ASYNC110 (nobody tells)
            await trio.sleep(0.02)


def publish(daemon: Daemon, *data: str, session: str = "s") -> httpx.Response:
    """Try to publish events with this data."""
    return httpx.post(daemon.session(session), json=[{"data": each} for each in data])


def health_of(daemon: Daemon) -> dict[str, Any]:
    """Return what it says of its health."""
    found: dict[str, Any] = httpx.get(f"{daemon.url}/health").json()
    return found


def page(daemon: Daemon, after: str, session: str = "s") -> dict[str, Any]:
    """Return the page after an event."""
    found: dict[str, Any] = httpx.get(
        daemon.session(session),
        params={"last_event_id": after},
        headers={"Accept": "application/json"},
    ).json()
    return found


def test_sessions_endings_and_keys_survive_kill_9(tmp_path: Path, launch: Launch) -> None:
    sections = settings(tmp_path)
    daemon = Daemon.start(tmp_path, launch, **sections)
    first = publish(daemon, "a", "b").json()
    keyed = {"data": "c", "idempotency_key": "k"}
    once = httpx.post(daemon.session("s"), json=keyed).json()
    publish(daemon, "x", session="closed")
    assert httpx.delete(f"{daemon.url}/v1/sessions/closed").status_code == 204
    daemon.kill()
    daemon = Daemon.start(tmp_path, launch, **sections)
    try:
        again = httpx.post(daemon.session("s"), json=keyed).json()
        rest = page(daemon, first["first_id"])

        assert (again["duplicates"], again["first_id"]) == (1, once["first_id"])
        assert [event["data"] for event in rest["events"]] == ["b", "c"]
        assert "gap" not in rest
        assert httpx.get(daemon.session("closed")).status_code == 204
    finally:
        daemon.stop_cleanly()


def test_a_stop_for_good_keeps_them_as_well(tmp_path: Path, launch: Launch) -> None:
    daemon = Daemon.start(tmp_path, launch, **settings(tmp_path))
    first = publish(daemon, "a", "b").json()
    daemon.process.send_signal(signal.SIGINT)
    daemon.process.wait(SOON_S)
    daemon.stdout.close()
    daemon = Daemon.start(tmp_path, launch, **settings(tmp_path))
    try:
        assert [each["data"] for each in page(daemon, first["first_id"])["events"]] == ["b"]
    finally:
        daemon.stop_cleanly()


def test_a_damaged_file_is_set_aside_and_clients_are_told(tmp_path: Path, launch: Launch) -> None:
    path = tmp_path / "events.sqlite"
    path.write_bytes(b"nothing of the kind" * 1000)
    daemon = Daemon.start(tmp_path, launch, **settings(tmp_path))
    try:
        assert publish(daemon, "a").status_code == 200
        assert page(daemon, "1234abcd-7")["gap"]["asked"] == "1234abcd-7"
        assert [*tmp_path.glob("events.sqlite.aside-*")]
    finally:
        daemon.stop_cleanly()
    assert "the engine's file was set aside" in daemon.log()


def test_a_second_daemon_on_the_same_file_says_so_and_does_not_start(
    tmp_path: Path, launch: Launch
) -> None:
    daemon = Daemon.start(tmp_path, launch, **settings(tmp_path))
    try:
        config = tmp_path / "broadcasterd.toml"
        with (tmp_path / "stderr of the second").open("w+") as stderr:
            second, stdout = launch(["serve", "--config", str(config)], os.environ, stderr)
            stdout.close()

            assert second.wait(START_S) == 2
            stderr.seek(0)
            assert "another process has it open" in stderr.read()
        assert publish(daemon, "a").status_code == 200
    finally:
        daemon.stop_cleanly()


async def test_without_room_to_write_publishers_get_503_and_streams_stay(
    tmp_path: Path, launch: Launch
) -> None:
    """The kernel refuses to let files of the process grow, as it does where a disk is full."""
    daemon = Daemon.start(tmp_path, launch, **settings(tmp_path))
    follower = Follower("s")
    promised = []
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.run, daemon.port)
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (300_000, limits[1]))
            for n in range(1000):
                data = f"{n} {'x' * 5000}"
                answer = publish(daemon, data)
                if answer.status_code != 200:
                    break
                promised.append(data)
            health = health_of(daemon)

            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert health["status"] == "degraded"
            assert health["engine"]["state"] == "down"
            assert health["engine"]["why"]

            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, limits)
            await until(lambda: publish(daemon, "after").status_code == 200)
            await follower.until("after")

            assert health_of(daemon)["status"] == "healthy"
            await until(lambda: "the engine is up again" in daemon.log())
            nursery.cancel_scope.cancel()
        assert follower.data == [*promised, "after"]
        assert follower.cuts == 0
    finally:
        daemon.stop_cleanly()
    daemon = Daemon.start(tmp_path, launch, **settings(tmp_path))
    try:
        rest = page(daemon, follower.ids[0])

        assert [each["data"] for each in rest["events"]][:100] == follower.data[1:101]
    finally:
        daemon.stop_cleanly()


def test_the_time_that_an_event_has_goes_on_while_nobody_runs(
    tmp_path: Path, launch: Launch
) -> None:
    daemon = Daemon.start(tmp_path, launch, **settings(tmp_path))
    first = publish(daemon, "a").json()
    httpx.post(daemon.session("s"), json={"data": "short", "ttl": 1.0})
    publish(daemon, "b")
    daemon.kill()
    time.sleep(1.0)
    daemon = Daemon.start(tmp_path, launch, **settings(tmp_path))
    try:
        assert [each["data"] for each in page(daemon, first["first_id"])["events"]] == ["b"]
    finally:
        daemon.stop_cleanly()
