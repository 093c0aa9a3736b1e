"""supervisord and logrotate with the packaged files, where the daemon is no service of systemd."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress

import httpx
import pytest

from tests.support.container import Container, until
from tests.support.service import PROJECT, Service
from tests.support.tools import require

CONFIG = PROJECT / "config"
LOGS = "var/log/broadcasterd"
STATE = "var/lib/broadcasterd"
PROGRAM = "etc/supervisor/conf.d/broadcasterd.conf"
ROTATION = "/etc/logrotate.d/broadcasterd"
USER = ("useradd", "--system", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
OWNED = ("--owner", "broadcasterd", "--group", "broadcasterd", "--mode", "750")


@pytest.fixture(scope="module")
def supervisor(machine: Container, installed: Service) -> Iterator[Service]:
    """Run it as the head of the file says, but where it is installed and may listen."""
    for program in ("supervisord", "logrotate", "pkill"):
        require(program)
    installed.begin_anew()  # its user is another one here
    machine.run(*USER, "broadcasterd")
    machine.run("rm", "-rf", f"/{STATE}")  # a link that the service leaves, which is not here
    for directory in (LOGS, STATE):
        machine.run("install", "--directory", *OWNED, f"/{directory}")
    program = (CONFIG / "supervisord.conf").read_text()
    (machine.root / PROGRAM).write_text(program.replace("/usr/local/bin/", "/usr/bin/"))
    machine.write(ROTATION, (CONFIG / "logrotate.conf").read_text())
    configure(installed)
    machine.run("systemctl", "start", "supervisor")
    try:
        yield installed
    finally:
        machine.run("supervisorctl", "shutdown", check=False)
        machine.run("systemctl", "stop", "supervisor")
        (machine.root / PROGRAM).unlink()
        shutil.rmtree(machine.root / LOGS)
        machine.run("rm", "-rf", f"/{STATE}")
        machine.run("userdel", "broadcasterd")


@pytest.fixture
def supervised(supervisor: Service) -> Service:
    """Return the daemon, which runs, and has not complained."""
    if "RUNNING" not in state(supervisor):
        configure(supervisor)
        machine = supervisor.container
        machine.run("supervisorctl", "restart", "broadcasterd", check=False)
    until(lambda: "RUNNING" in state(supervisor))
    until(lambda: answers(supervisor))  # the log may be from a start before
    (supervisor.container.root / LOGS / "stderr.log").write_text("")
    return supervisor


def configure(service: Service, **sections: Mapping[str, object]) -> None:
    service.configure(server={"host": service.host}, engine={"kind": "sqlite"}, **sections)


def state(service: Service) -> str:
    return service.container.run("supervisorctl", "status", "broadcasterd", check=False).stdout


def answers(service: Service) -> bool:
    with suppress(httpx.TransportError):
        return service.get("/health/live").is_success
    return False


def log(service: Service, name: str = "broadcasterd.log") -> str:
    path = service.container.root / LOGS / name
    return path.read_text() if path.exists() else ""


def test_a_rotation_and_a_reload_cost_no_stream_and_a_stop_tells_all(supervised: Service) -> None:
    machine = supervised.container

    assert "broadcasterd" == machine.run("pgrep", "-u", "broadcasterd", "-l").stdout.split()[-1]

    with supervised.listening("s") as listener:
        machine.run("logrotate", "--force", ROTATION)
        until(lambda: "log reopened" in log(supervised))

        assert "ready" in log(supervised, "broadcasterd.log.1")

        configure(supervised, sessions={"retry_ms": 1234})
        machine.run("supervisorctl", "signal", "HUP", "broadcasterd")
        until(lambda: "configuration reloaded" in log(supervised))
        supervised.publish("s", "x")
        listener.until("x")
        machine.run("supervisorctl", "stop", "broadcasterd")

        assert "draining" == listener.until_end()["reason"]

    assert "STOPPED" in state(supervised)
    assert (machine.root / STATE / "events.sqlite").exists()
    assert "stopped" in log(supervised)
    assert "" == log(supervised, "stderr.log")


def test_what_a_start_has_to_say_is_in_a_file_of_its_own(supervised: Service) -> None:
    supervised.write_configuration("[server]\nprot = 1\n")
    supervised.container.run("supervisorctl", "restart", "broadcasterd", check=False)

    until(lambda: "server.prot: unknown key" in log(supervised, "stderr.log"))
