"""What the daemon cannot do, tried in its own place: with its namespaces and its user."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.container import Container
from tests.support.service import Service


@pytest.fixture(scope="module")
def serving(machine: Container) -> Iterator[Service]:
    """Return the service, started; the tests only look at it."""
    with Service(machine).installed() as service:
        service.start()
        yield service


def status(service: Service) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    lines = (service.proc / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def as_the_daemon(service: Service, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the files and the user of the daemon, without any capability."""
    uid = str(service.proc.stat().st_uid)
    enter = ["nsenter", "--target", service.proc.name, "--mount", "--"]
    become = [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        "--bounding-set=-all",
    ]
    return subprocess.run(
        [*enter, *become, *command], capture_output=True, text=True, check=False, timeout=10
    )


def test_it_has_no_capability_and_gets_none(serving: Service) -> None:
    found = status(serving)

    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert 0 == int(found[capabilities], 16)
    assert ("1", "2") == (found["NoNewPrivs"], found["Seccomp"])
    assert "0" not in found["Uid"].split()


@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/etc/broadcasterd",
        "/usr/lib/broadcasterd",
        "/var/lib",
        "/run",
        "/dev",
        "/sys",
        "/root",
    ],
)
def test_it_writes_nowhere(place: str, serving: Service) -> None:
    done = as_the_daemon(serving, "sh", "-c", f": > {place}/probe")

    assert 0 != done.returncode


@pytest.mark.parametrize("place", ["/var/lib/broadcasterd", "/run/broadcasterd", "/tmp"])  # noqa: S108 (its own)
def test_it_writes_to_what_is_its_own(place: str, serving: Service, machine: Container) -> None:
    done = as_the_daemon(serving, "sh", "-c", f"echo hello > {place}/probe && cat {place}/probe")

    assert "hello\n" == done.stdout, done.stderr
    if place == "/tmp":  # noqa: S108
        assert not (machine.root / "tmp/probe").exists(), "that is everybody's"


def test_it_sees_no_home_and_no_other_process(serving: Service) -> None:
    homes = as_the_daemon(serving, "ls", "/root", "/home")
    others = as_the_daemon(serving, "cat", "/proc/1/cmdline")

    assert "" == homes.stdout.replace("/root:", "").replace("/home:", "").strip()
    assert "" == others.stdout
