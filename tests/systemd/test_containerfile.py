"""The image that config/Containerfile makes, and what its container does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import broadcasterd
from tests.support.container import SOON_S, Container, until, why_not
from tests.support.containerfile import Image, built
from tests.support.lines import Lines
from tests.support.service import PROJECT
from tests.support.tokens import SECRET, bearer, claims, sign
from tests.support.tools import lack, require

UNIT = "image.service"
RELEASES = "usr/lib/broadcasterd/releases"
URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def image(sdist: Path, tree: Path) -> Iterator[Image]:
    """Build the image of the source distribution, whose release the tree has."""
    if reason := why_not():
        lack(reason)
    text = (PROJECT / "config/Containerfile").read_text()
    with built(text, sdist, (tree / RELEASES, f"/image/{RELEASES}")) as image:
        yield image


@contextmanager
def running(image: Image, **environment: str) -> Iterator[Container]:
    """Run the image's command as its user says, in a network of its own."""
    user, group = image.user.split(":")
    variables = [f"--setenv={k}={v}" for k, v in (image.environment | environment).items()]
    isolated = [f"--property={each}=yes" for each in ("PrivateNetwork", "RemainAfterExit")]
    machine = image.container
    machine.run(
        *("systemd-run", f"--unit={UNIT}", "--service-type=exec", *isolated, *variables),
        f"--property=KillSignal={image.stop_signal}",
        *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"),
        *(*image.entrypoint, *image.command),
    )
    try:
        yield machine
    finally:
        machine.run("systemctl", "stop", UNIT)
        machine.run("systemctl", "reset-failed", UNIT, check=False)


def healthy(image: Image, *place: str) -> bool:
    """Whether the health check succeeds, at a place."""
    return image.container.run(*place, *image.health_check, check=False).returncode == 0


def test_its_container_serves_as_nobody_and_tells_its_streams_of_the_end(image: Image) -> None:
    with running(image, BROADCASTERD_AUTH__SECRET=SECRET) as machine:
        pid = machine.show(UNIT, "MainPID")
        there = ("nsenter", f"--target={pid}", "--net")
        machine.run(*there, "ip", "link", "set", "lo", "up")  # systemd may not, in here
        until(lambda: healthy(image, *there))

        assert "10001 broadcasterd" == machine.run("ps", "-o", "uid=,comm=", pid).stdout.strip()

        token = bearer(sign(claims(subscribe=("s",))))["Authorization"]
        here = ["nsenter", f"--target={machine.pid_here(int(pid))}", "--net"]
        listen = ["curl", "-sN", "-H", f"Authorization: {token}", f"{URL}/v1/sessions/s/events"]
        with subprocess.Popen([*here, *listen], stdout=subprocess.PIPE, text=True) as listener:
            try:
                assert listener.stdout is not None
                lines = Lines(listener.stdout)
                until(lambda: (lines.next(within=SOON_S) or "").startswith(": stream "))
                machine.run("systemctl", "kill", f"--signal={image.stop_signal}", UNIT)
                told = list(iter(lambda: lines.next(within=SOON_S), None))
            finally:
                listener.kill()
                lines.close()

        assert "event: broadcaster.end" in told
        until(lambda: machine.show(UNIT, "SubState") == "exited")
        assert "0" == machine.show(UNIT, "ExecMainStatus")
        assert not healthy(image, "unshare", "--net")


def test_without_a_secret_it_says_what_is_missing(image: Image) -> None:
    with running(image) as machine:
        until(lambda: machine.show(UNIT, "SubState") == "failed")

        assert "2" == machine.show(UNIT, "ExecMainStatus")
        said = [record["MESSAGE"] for record in machine.journal(f"--unit={UNIT}")]
        assert any("auth.secret_file: expected" in line for line in said), said


def test_it_shares_events_on_a_redis(image: Image) -> None:
    require("redis-server")
    place = {"KIND": "redis", "URL": "redis://127.0.0.1:6379"}
    engine = {f"BROADCASTERD_ENGINE__{key}": value for key, value in place.items()}
    with running(image, BROADCASTERD_AUTH__SECRET=SECRET, **engine) as machine:
        there = ("nsenter", f"--target={machine.show(UNIT, 'MainPID')}", "--net")
        machine.run(*there, "ip", "link", "set", "lo", "up")

        def state() -> str:
            said = machine.run(*there, "curl", "-s", f"{URL}/health", check=False).stdout
            return str(json.loads(said)["engine"]["state"]) if said else ""

        until(lambda: state() == "down")
        machine.run(*there, "redis-server", "--save", "", "--dir", "/srv", "--daemonize", "yes")
        try:
            until(lambda: state() == "up")
        finally:
            machine.run(*there, "redis-cli", "shutdown", "nosave", check=False)


def test_the_image_has_the_release_and_no_secret(image: Image) -> None:
    root = image.container.root

    assert [broadcasterd.__version__] == [path.name for path in (root / RELEASES).iterdir()]
    assert ["broadcasterd.toml"] == [path.name for path in (root / "etc/broadcasterd").iterdir()]
