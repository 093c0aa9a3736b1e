"""The protocols of systemd, spoken with real sockets and descriptors."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadcasterd.host.systemd import FIRST_FD, Notifier, take_listen_fds, watchdog_period


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """Return the socket at which a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10)
        yield listening


# --- telling ---------------------------------------------------------------------------------


def test_what_is_told_is_one_datagram(manager: socket.socket, tmp_path: Path) -> None:
    manager.bind(f"{tmp_path}/notify")

    assert Notifier(f"{tmp_path}/notify").send("READY=1", "STATUS=two words")
    assert b"READY=1\nSTATUS=two words" == manager.recv(4096)


def test_an_at_sign_stands_for_the_abstract_namespace(manager: socket.socket) -> None:
    name = f"broadcasterd-test-{os.getpid()}"
    manager.bind(f"\0{name}")
    Notifier(f"@{name}").send("READY=1")

    assert b"READY=1" == manager.recv(4096)


def test_descriptors_can_be_left_with_it(manager: socket.socket, tmp_path: Path) -> None:
    manager.bind(f"{tmp_path}/notify")
    reader, writer = os.pipe()
    Notifier(f"{tmp_path}/notify").send("FDSTORE=1", "FDNAME=kept", fds=[reader])
    os.close(reader)
    message, ancillary, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(4))
    [(_, kind, data)] = ancillary
    [kept] = array.array("i", data)
    os.write(writer, b"through it")

    assert (b"FDSTORE=1\nFDNAME=kept", socket.SCM_RIGHTS) == (message, kind)
    assert b"through it" == os.read(kept, 100)

    os.close(kept)
    os.close(writer)


def test_a_manager_that_is_busy_is_not_waited_for(manager: socket.socket, tmp_path: Path) -> None:
    manager.bind(f"{tmp_path}/notify")
    notifier = Notifier(f"{tmp_path}/notify")
    while notifier.send("WATCHDOG=1"):  # the test hangs here if it waits
        pass
    manager.recv(4096)

    assert notifier.send("WATCHDOG=1"), "there is room again"


@pytest.mark.parametrize("address", [None, "/nowhere/at/all", "@nobody-listens-here"])
def test_where_nobody_listens_nothing_is_wrong(address: str | None) -> None:
    assert Notifier(address).send("READY=1")


# --- descriptors -----------------------------------------------------------------------------

HANDED = """
import json, os
from broadcasterd.host.systemd import take_listen_fds
os.environ["LISTEN_PID"] = str(os.getpid() + {pid_off})
found = take_listen_fds(os.environ)
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps([[[h.name, h.fd, os.get_inheritable(h.fd)] for h in found], left]))
"""


def handed(names: str | None, *, pid_off: int = 0) -> str:
    """Start a process with two descriptors, and return what it finds."""
    variables = {"LISTEN_FDS": "2"} | ({} if names is None else {"LISTEN_FDNAMES": names})
    program = [sys.executable, "-c", HANDED.format(pid_off=pid_off)]
    with socket.socket() as first, socket.socket() as second:
        # Descriptors 3 and 4, whatever they are here.
        shell = f"exec {FIRST_FD}<&{first.fileno()} {FIRST_FD + 1}<&{second.fileno()}"
        return subprocess.check_output(
            ["bash", "-c", f'{shell}; exec "$@"', "-", *program],
            env={**os.environ, **variables},
            pass_fds=[first.fileno(), second.fileno()],
            text=True,
        ).strip()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("http:kept", '[["http", 3, false], ["kept", 4, false]]'),
        ("http", '[["http", 3, false], ["unknown", 4, false]]'),
        (None, '[["unknown", 3, false], ["unknown", 4, false]]'),
    ],
)
def test_what_is_handed_over_is_found_by_name_and_taken(names: str | None, expected: str) -> None:
    assert f"[{expected}, []]" == handed(names)


def test_what_is_meant_for_another_process_is_left_alone() -> None:
    assert "[[], []]" == handed("http:kept", pid_off=1)


def test_nothing_is_handed_over_to_a_daemon_in_a_terminal() -> None:
    assert [] == take_listen_fds({})


# --- the watchdog ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "ours"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
    ids=str,
)
def test_the_period_of_the_watchdog(environ: dict[str, str], expected: float | None) -> None:
    if environ.get("WATCHDOG_PID") == "ours":
        environ = {**environ, "WATCHDOG_PID": str(os.getpid())}

    assert expected == watchdog_period(environ)
