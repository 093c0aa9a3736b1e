"""The unit files, those made of others too, as systemd itself judges them."""

from __future__ import annotations

import pytest

from deployment.units import NAMES
from tests.support.container import Container

UNITS = "/usr/lib/systemd/system"
EXPOSURE = 1.5
SERVICES = [name for name in NAMES if name.endswith(".service")]


def complaints(machine: Container, file: str) -> str:
    """Return what systemd-analyze has to say about a unit file."""
    done = machine.run(
        "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file, check=False
    )

    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


@pytest.mark.parametrize("unit", NAMES)
def test_systemd_has_nothing_to_say_about_a_unit(unit: str, machine: Container) -> None:
    assert "" == complaints(machine, f"{UNITS}/{unit}")


def test_it_would_say_so(machine: Container) -> None:
    good = (machine.root / f"{UNITS[1:]}/broadcasterd.service").read_text()
    machine.write("/run/bad.service", good.replace("MemoryMax=", "MemoryMx="))

    assert "MemoryMx" in complaints(machine, "/run/bad.service")


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_hardly_exposed(
    unit: str, machine: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    done = machine.run(
        "systemd-analyze", "security", "--no-pager", "--offline=yes", f"{UNITS}/{unit}"
    )
    *_, verdict = filter(None, done.stdout.splitlines())
    with capsys.disabled():
        print(f"\n{verdict}")  # noqa: T201 (the figure is of interest while it is good, too)
    _, _, figure = verdict.partition("exposure level for ")

    assert float(figure.split()[1]) <= EXPOSURE
