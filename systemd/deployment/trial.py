"""A release started once beside the one that serves, before anything is switched.

One that hangs or crashes at its start, or does not serve, so costs nobody even a moment. It has
the configuration, the credentials and the kind of user that it would have, at a port and with a
state of its own.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

from deployment import smoke
from deployment.commands import Say, run, said_since
from deployment.http import Client
from deployment.instance import Instance
from deployment.releases import DeploymentError

ADDRESS = "127.0.0.1"


def rehearse(instance: Instance, release: Path, say: Say) -> None:
    """Start a release with the instance's configuration, and see whether it serves.

    Raises:
        DeploymentError: it does not; nothing was changed.

    """
    unit = f"broadcasterd-trial-{instance.name}.service"
    port = _free_port()
    since = time.time()
    try:
        try:
            run(*_command(instance, release, unit, port))
        except DeploymentError as error:
            raise DeploymentError(f"it does not start\n{said_since(unit, since)}") from error
        client = Client(
            f"{instance.scheme()}://{ADDRESS}:{port}", instance.token(release, smoke.SESSIONS)
        )
        smoke.run(client, smoke.smoke(release.name), lambda seen: say(f"on trial: {seen}"))
    finally:
        with suppress(DeploymentError):
            run("systemctl", "stop", unit)


def _command(instance: Instance, release: Path, unit: str, port: int) -> list[str | Path]:
    properties = {
        "DynamicUser": "yes",
        "RuntimeDirectory": unit.removesuffix(".service"),
        "TimeoutStartSec": instance.start_timeout(),
        "TimeoutStopSec": "5",
        "SyslogIdentifier": "broadcasterd",
        "StandardOutput": "null",
        "StandardError": "journal",
    }
    credentials = [f"LoadCredential={name}:{path}" for name, path in instance.credentials().items()]
    at = {"BROADCASTERD_SERVER__HOST": ADDRESS, "BROADCASTERD_SERVER__PORT": str(port)}
    if instance.keeps_events():  # not in the file of the one that serves
        at["BROADCASTERD_ENGINE__PATH"] = f"/run/{unit.removesuffix('.service')}/events.sqlite"
    return [
        *("systemd-run", "--quiet", "--collect", f"--unit={unit}", "--service-type=notify"),
        *(f"--property={name}={value}" for name, value in properties.items()),
        *(f"--property={credential}" for credential in credentials),
        *(f"--setenv={name}={value}" for name, value in at.items()),
        *(release / "bin/broadcasterd", "serve", "--config", instance.settings),
    ]


def _free_port() -> int:
    """Return a port that nobody has just now: the next moment it is the trial's."""
    with socket.create_server((ADDRESS, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
