"""The files beside the releases: configuration, command, catalog and documentation."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from deployment.build import CHECKOUT
from deployment.commands import reread_units_and_catalog, run
from deployment.files import remove, replace_link, write_once
from deployment.instance import Instance
from deployment.layout import Layout
from deployment.releases import DeploymentError
from deployment.units import NAMES, SERVICE, SOCKET

EXAMPLE = CHECKOUT / "config/broadcasterd.toml"
EXAMPLE_SECRET = re.compile(r'^# secret_file = "[^"]*"', re.MULTILINE)
SECRET_BYTES = 48
ENABLED = Path("/etc/systemd/system")
LEFT = (
    Path("/etc/broadcasterd"),
    Path("/var/lib/private/broadcasterd"),
    *(ENABLED / f"{unit}.d" for unit in (SERVICE, SOCKET)),
)
"""The configuration with its secrets, the state, and what `systemctl edit` wrote."""

SYSTEMD_RUNS = Path("/run/systemd/system")


def configure(instance: Instance, layout: Layout) -> None:
    """Give an instance a configuration and a secret, each only where there is none.

    Raises:
        DeploymentError: the example has no line that names the secret.

    """
    settings, found = EXAMPLE_SECRET.subn(
        f'secret_file = "{instance.secret}"', EXAMPLE.read_text("utf-8")
    )
    if found != 1:
        raise DeploymentError(f"{EXAMPLE} should name the secret once, and does {found} times")
    write_once(layout.here(instance.settings), settings, 0o644)
    write_once(layout.here(instance.secret), f"{secrets.token_urlsafe(SECRET_BYTES)}\n", 0o600)


def link_to_current(layout: Layout) -> None:
    """Have all that is not in a release lead into the current one, whichever it is."""
    documentation = layout.here(layout.documentation)
    remove(documentation)
    for link, target in (
        (layout.here(layout.command), "../lib/broadcasterd/current/bin/broadcasterd"),
        (layout.here(layout.catalog), f"../../broadcasterd/current/systemd/{layout.catalog.name}"),
        (documentation, "../../lib/broadcasterd/current/doc"),
        *(
            (layout.here(place), os.path.relpath(target, place.parent))
            for place, target in layout.shared.items()
        ),
    ):
        link.parent.mkdir(parents=True, exist_ok=True)
        replace_link(link, target)
    if runs_systemd(layout):
        reread_units_and_catalog()


def uninstall(layout: Layout) -> list[Path]:
    """Stop all instances, and remove everything but configuration and state; return what is left.

    Raises:
        DeploymentError: systemd does not take note of it.

    """
    units = [layout.units / name for name in NAMES]
    if runs_systemd(layout):
        with suppress(DeploymentError):  # it may not be installed
            run("systemctl", "disable", "--now", SOCKET, SERVICE)
        run("systemctl", "stop", "broadcasterd@*")
    for link in layout.here(ENABLED).glob("*.wants/broadcasterd@*"):  # or they would lead nowhere
        link.unlink()
    shared = (layout.documentation, layout.command, layout.catalog, *layout.shared)
    for place in (layout.library, *shared, *units):
        remove(layout.here(place))
    if runs_systemd(layout):
        reread_units_and_catalog()
    return [path for path in LEFT if layout.here(path).exists()]


def runs_systemd(layout: Layout) -> bool:
    """Return whether there is a systemd that is to know: not in a tree for another machine."""
    return layout.is_this_machine and SYSTEMD_RUNS.is_dir()
