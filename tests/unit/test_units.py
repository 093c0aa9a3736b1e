"""The unit files that are made of the service and the socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployment.build import CHECKOUT
from deployment.layout import Layout
from deployment.releases import DeploymentError
from deployment.units import NAMES, OF_STAGING, SERVICE, SOCKET, TEMPLATES, template, units

SOURCES = CHECKOUT / "systemd"
MADE = units(SOURCES, Layout())
LOCAL = units(SOURCES, Layout(prefix=Path("/usr/local")))


def settings(unit: str) -> list[str]:
    """Return the lines of a unit that are no comments."""
    return [line for line in unit.splitlines() if line and not line.startswith("#")]


def differing(one: str, other: str) -> list[str]:
    """Return the lines of the other that differ; both have as many."""
    pairs = zip(settings(one), settings(other), strict=True)
    return [there for here, there in pairs if here != there]


def test_they_are_all_there() -> None:
    assert set(NAMES) == set(MADE)


@pytest.mark.parametrize("name", [SERVICE, SOCKET])
def test_in_its_usual_place_a_unit_is_what_it_is_in_the_checkout(name: str) -> None:
    assert (SOURCES / name).read_text() == MADE[name]


def test_the_template_is_the_service_with_names_of_its_own() -> None:
    assert [
        "Description=Broadcasts events over Server-Sent Events (%i)",
        "Requires=broadcasterd@%i.socket",
        "After=broadcasterd@%i.socket network.target",
        "ExecStart=/usr/bin/broadcasterd serve --config /etc/broadcasterd/%i.toml",
        "LoadCredential=secret:/etc/broadcasterd/%i.secret",
        "LoadCredential=jwks.json:/etc/broadcasterd/%i.jwks.json",
        "LoadCredential=tls_certificate.pem:/etc/broadcasterd/%i.tls/fullchain.pem",
        "LoadCredential=tls_key.pem:/etc/broadcasterd/%i.tls/privkey.pem",
        "LoadCredential=webhook_key:/etc/broadcasterd/%i.webhook_key",
        "LoadCredential=engine_password:/etc/broadcasterd/%i.engine_password",
        "LoadCredential=sentinel_password:/etc/broadcasterd/%i.sentinel_password",
        "LoadCredential=engine_certificate.pem:/etc/broadcasterd/%i.engine_certificate.pem",
        "LoadCredential=engine_key.pem:/etc/broadcasterd/%i.engine_key.pem",
        "User=broadcasterd-%i",
        "StateDirectory=broadcasterd-%i",
        "RuntimeDirectory=broadcasterd-%i",
        "Also=broadcasterd@%i.socket",
    ] == differing(MADE[SERVICE], MADE[TEMPLATES[SERVICE]])


def test_the_template_of_the_socket_has_an_address_of_its_own() -> None:
    made = MADE[TEMPLATES[SOCKET]]

    assert [
        "Description=Socket of broadcasterd (%i)",
        "ListenStream=127.0.0.1:8001",
    ] == differing(MADE[SOCKET], made)
    assert "broadcasterd@third.socket" in made.partition("[Unit]")[0]


def test_staging_differs_in_the_release_that_it_starts() -> None:
    starts = "/usr/lib/broadcasterd/staging/bin/broadcasterd"

    assert [
        f"ExecStart={starts} serve --config /etc/broadcasterd/%i.toml",
        f"ExecReload={starts} reload",
    ] == differing(MADE[TEMPLATES[SERVICE]], MADE[OF_STAGING[SERVICE]])
    assert MADE[TEMPLATES[SOCKET]] == MADE[OF_STAGING[SOCKET]]


@pytest.mark.parametrize("name", NAMES)
def test_another_prefix_is_everywhere(name: str) -> None:
    assert MADE[name].replace("/usr/", "/usr/local/") == LOCAL[name]


@pytest.mark.parametrize(
    ("name", "lacks"), [(SERVICE, "User=broadcasterd\n"), (SOCKET, "ListenStream=127.0.0.1:8000\n")]
)
def test_a_unit_that_lacks_what_a_template_changes_is_refused(name: str, lacks: str) -> None:
    with pytest.raises(DeploymentError, match=f"{name} has no '{lacks.strip()}'"):
        template(name, MADE[name].replace(lacks, ""))
