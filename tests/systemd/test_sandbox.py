"""Acts forbidden to the daemon, tried in its own place: with its namespaces and its user."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.container import Container
from tests.support.service import Service


def status(service: Service) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    lines = (service.proc / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def in_its_place(service: Service, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the files that the daemon sees."""
    enter = ["nsenter", "--target", service.proc.name, "--mount", "--"]
    return subprocess.run(
        [*enter, *command], capture_output=True, text=True, check=False, timeout=10
    )


def as_the_daemon(service: Service, *command: str) -> subprocess.CompletedProcess[str]:
    """Run it as the user that the daemon is, too, and without any capability."""
    uid = str(service.proc.stat().st_uid)
    become = [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        "--bounding-set=-all",
    ]
    return in_its_place(service, *become, *command)


def test_it_has_no_capability_and_gets_none(serving: Service) -> None:
    found = status(serving)

    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert 0 == int(found[capabilities], 16)
    assert ("1", "2") == (found["NoNewPrivs"], found["Seccomp"])
    assert "0" not in found["Uid"].split()


@pytest.mark.parametrize("place", ["/run", "/dev", "/var/log", "/var/lib/private"])
def test_its_user_may_not_write(place: str, serving: Service) -> None:
    assert 0 != as_the_daemon(serving, "sh", "-c", f": > {place}/probe").returncode


READ_ONLY = ["/", "/etc/broadcasterd", "/usr/lib/broadcasterd", "/var/lib", "/root", "/sys"]


@pytest.mark.parametrize("place", READ_ONLY)
def test_nobody_could_write(place: str, serving: Service) -> None:
    """Were it root, there would be no way."""
    done = in_its_place(serving, "sh", "-c", f": > {place}/probe")

    assert "Read-only file system" in done.stderr


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
