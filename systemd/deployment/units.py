"""The unit files of a release: the two of the checkout, and those that are made of them.

A template is the unit with names of its own for each instance (``%i``). Staging has the template's
units once more, because it starts from a release of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deployment.layout import Layout
from deployment.releases import DeploymentError

USUAL = Layout()
"""The layout whose places the unit files of the checkout name."""

SERVICE = "broadcasterd.service"
SOCKET = "broadcasterd.socket"
TEMPLATES = {SERVICE: "broadcasterd@.service", SOCKET: "broadcasterd@.socket"}
OF_STAGING = {SERVICE: "broadcasterd@staging.service", SOCKET: "broadcasterd@staging.socket"}
NAMES = (SERVICE, SOCKET, *TEMPLATES.values(), *OF_STAGING.values())

OF_AN_INSTANCE: dict[str, Sequence[tuple[str, str]]] = {
    SERVICE: (
        ("Server-Sent Events\n", "Server-Sent Events (%i)\n"),
        ("broadcasterd.socket", "broadcasterd@%i.socket"),
        ("/etc/broadcasterd/broadcasterd.toml", "/etc/broadcasterd/%i.toml"),
        ("/etc/broadcasterd/secret", "/etc/broadcasterd/%i.secret"),
        ("/etc/broadcasterd/jwks.json", "/etc/broadcasterd/%i.jwks.json"),
        ("/etc/broadcasterd/tls/", "/etc/broadcasterd/%i.tls/"),
        ("/etc/broadcasterd/webhook_key", "/etc/broadcasterd/%i.webhook_key"),
        ("/etc/broadcasterd/engine_password", "/etc/broadcasterd/%i.engine_password"),
        ("/etc/broadcasterd/sentinel_password", "/etc/broadcasterd/%i.sentinel_password"),
        ("/etc/broadcasterd/engine_certificate.pem", "/etc/broadcasterd/%i.engine_certificate.pem"),
        ("/etc/broadcasterd/engine_key.pem", "/etc/broadcasterd/%i.engine_key.pem"),
        ("User=broadcasterd\n", "User=broadcasterd-%i\n"),
        ("StateDirectory=broadcasterd\n", "StateDirectory=broadcasterd-%i\n"),
        ("RuntimeDirectory=broadcasterd\n", "RuntimeDirectory=broadcasterd-%i\n"),
    ),
    SOCKET: (
        ("Socket of broadcasterd\n", "Socket of broadcasterd (%i)\n"),
        ("ListenStream=127.0.0.1:8000\n", "ListenStream=127.0.0.1:8001\n"),
    ),
}

ABOVE_THE_SOCKET = """\
# Where another instance of broadcasterd listens: staging beside production, say. The configuration
# of broadcasterd@staging is /etc/broadcasterd/staging.toml. A third one needs an address of its
# own: `systemctl edit broadcasterd@third.socket`, with
#
#   [Socket]
#   ListenStream=
#   ListenStream=127.0.0.1:8002

"""


def units(sources: Path, layout: Layout) -> dict[str, str]:
    """Return the text of each unit file by its name.

    Args:
        sources: has the service and the socket.
        layout: the places that the units name.

    Raises:
        DeploymentError: a template cannot be made: a text that it changes is not in the unit.

    """
    made = {}
    for name in (SERVICE, SOCKET):
        unit = (sources / name).read_text("utf-8")
        made[name] = placed(unit, layout)
        made[TEMPLATES[name]] = placed(template(name, unit), layout)
        made[OF_STAGING[name]] = made[TEMPLATES[name]].replace(
            f"{layout.command}", f"{layout.staging_command}"
        )
    return made


def template(name: str, unit: str) -> str:
    """Make a template of a unit.

    Raises:
        DeploymentError: the unit lacks a name that a template changes.

    """
    if name == SOCKET:
        unit = ABOVE_THE_SOCKET + unit[unit.index("[Unit]") :]
    for of_the_unit, of_an_instance in OF_AN_INSTANCE[name]:
        if of_the_unit not in unit:
            raise DeploymentError(f"{name} has no {of_the_unit.strip()!r} to make a template of")
        unit = unit.replace(of_the_unit, of_an_instance)
    return unit


def placed(text: str, layout: Layout) -> str:
    """Have a unit file, or the catalog, name the places of another layout."""
    for usual, place in (
        (USUAL.command, layout.command),
        (USUAL.documentation, layout.documentation),
    ):
        text = text.replace(f"{usual}", f"{place}")
    return text
