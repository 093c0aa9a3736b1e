"""The daemon as a user's own service (docs/systemd.md), under that user's systemd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.container import Container, until
from tests.support.daemon import as_toml
from tests.support.documents import listings_of
from tests.support.service import DEFAULTS, PORT, PROJECT, Service

USER = "somebody"
HOME = f"/home/{USER}"
UNIT = "broadcasterd.service"
AS_USER = f"runuser -u {USER} -- env XDG_RUNTIME_DIR=/run/user/{{uid}} systemctl --user"


def unit() -> str:
    """Return the unit that the documents have."""
    [found] = listings_of(PROJECT / "docs/systemd.md", "ini", "A user's own service")
    return found


@dataclass(frozen=True, slots=True)
class UserService:
    """The service of a user, whose systemd runs."""

    container: Container
    uid: str
    daemon: Service

    def systemctl(self, *arguments: str) -> str:
        """Ask the user's systemd."""
        return self.container.run(*AS_USER.format(uid=self.uid).split(), *arguments).stdout.strip()

    @property
    def manager(self) -> str:
        """The unit that the user's systemd is."""
        return f"user@{self.uid}.service"

    @property
    def pid(self) -> int:
        """The daemon's process id inside the container."""
        return int(self.systemctl("show", "--property=MainPID", "--value", UNIT))


@pytest.fixture(scope="module")
def user(machine: Container) -> Iterator[UserService]:
    """Make a user who has the service."""
    machine.run("useradd", "--create-home", USER)
    uid = machine.run("id", "-u", USER).stdout.strip()
    daemon = Service(machine)
    configuration = {**DEFAULTS, "server": {"host": daemon.host, "port": PORT}}
    machine.write(f"{HOME}/.config/broadcasterd.toml", as_toml(configuration))
    machine.write(f"{HOME}/.config/systemd/user/{UNIT}", unit())
    yield UserService(machine, uid, daemon)
    machine.run("userdel", "--remove", USER)


@pytest.fixture
def users(user: UserService) -> Iterator[UserService]:
    """Start the user's systemd, and the service."""
    user.container.run("loginctl", "enable-linger", USER)
    user.container.run("systemctl", "start", user.manager)
    try:
        user.systemctl("start", UNIT)
        yield user
    finally:
        user.container.run("loginctl", "disable-linger", USER)
        user.container.run("systemctl", "stop", user.manager)


def test_a_restart_of_a_users_service_closes_no_stream_and_a_bad_reload_fails(
    users: UserService,
) -> None:
    pid = users.pid
    with users.daemon.listening("s") as listener:
        users.systemctl("restart", UNIT)
        assert users.pid not in {0, pid}
        users.daemon.publish("s", "after")

        assert "after" == listener.until("after").data

    users.systemctl("reload", UNIT)

    path = users.container.root / f"{HOME}/.config/broadcasterd.toml".lstrip("/")
    good = path.read_text()
    try:
        path.write_text(f"{good}\n[sessions]\nretry = 1\n")
        with pytest.raises(AssertionError, match="failed"):
            users.systemctl("reload", UNIT)
    finally:
        path.write_text(good)


@pytest.mark.parametrize(
    "command",
    [
        "systemctl stop user@{uid}.service",
        f"loginctl terminate-user {USER}",
        f"{AS_USER} exit",
    ],
)
def test_the_end_of_a_users_systemd_tells_every_stream(command: str, users: UserService) -> None:
    with users.daemon.listening("s") as listener:
        users.container.run(*command.format(uid=users.uid).split())

        assert {"reason": "draining", "reconnect": True} == listener.until_end()
    until(lambda: users.container.show(users.manager, "ActiveState") == "inactive")
