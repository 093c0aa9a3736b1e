"""The package for Debian, with the real apt in a container that has no network while it runs."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import broadcasterd
from tests.support.container import Container, why_not
from tests.support.releases import edit, replace
from tests.support.service import Service, make
from tests.support.throughout import unnoticed
from tests.support.tools import lack, require

OLD = broadcasterd.__version__
NEW = "99.1"
DEAD = "99.2"
"""The packages there are; the last one does not start."""

SETTINGS = "etc/broadcasterd/broadcasterd.toml"
LIBRARY = "usr/lib/broadcasterd"
APT = ("unshare", "--net", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--quiet")
SUBSCRIBERS, SESSIONS = 20, 4


@pytest.fixture(scope="module")
def package(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a package of the release that the tree has."""
    for program in ("dpkg-deb", "apt-get"):
        require(program)
    made = tmp_path_factory.mktemp("packages")
    make("deb", f"DESTDIR={tree}", f"DIST={made}")
    [package] = made.iterdir()
    return package


def change(contents: Path, version: str) -> None:
    """Have an unpacked package be of another version, and another configuration."""
    release = contents / LIBRARY / "packaged"
    for name in ("control", "postinst"):
        path = contents / "DEBIAN" / name
        replace(path, path.read_text().replace(OLD, version))
    replace(release / "contents", f"{version}\n")
    edit(release, "__init__.py", f'"{OLD}"', f'"{version}"')
    if version == DEAD:
        edit(release, "process.py", "    notifier =", "    raise OSError('broken')\n    notifier =")
    settings = contents / SETTINGS
    replace(settings, f"{settings.read_text()}# A newer one\n")


def make_others(machine: Container) -> None:
    """Make two more packages of the one that a machine has."""
    made = machine.root / "srv"
    old = made / "unpacked"
    machine.run("dpkg-deb", "--raw-extract", f"/srv/{OLD}.deb", f"/srv/{old.name}")
    for version in (NEW, DEAD):
        contents = made / version
        subprocess.run(["cp", "--archive", "--link", old, contents], check=True)
        change(contents, version)
        build = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", f"/srv/{version}"]
        machine.run(*build, f"/srv/{version}.deb")


@pytest.fixture(scope="module")
def debian(package: Path) -> Iterator[Container]:
    """Boot a machine, on which apt may start services, with the packages."""
    if reason := why_not():
        lack(reason)
    with Container.booted() as machine:
        (machine.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        for read_each_time in (machine.root / "var/lib/apt/lists").glob("*_*"):
            read_each_time.unlink()
        machine.write(
            "/etc/dpkg/dpkg.cfg.d/test", "force-unsafe-io\nforce-confdef\nforce-confold\n"
        )
        shutil.copy(package, machine.root / f"srv/{OLD}.deb")
        make_others(machine)
        yield machine


@pytest.fixture
def service(debian: Container) -> Iterator[Service]:
    """Install the package, where nothing is of it; purge it afterwards."""
    with Service(debian).installed() as service:
        (debian.root / SETTINGS).unlink()
        apt_install(service, OLD)
        yield service
        debian.run("dpkg", "--purge", "broadcasterd")


def apt_install(service: Service, version: str, *, succeeds: bool = True) -> str:
    """Install a version; return what was said."""
    command = [*APT, "install", "--allow-downgrades", f"/srv/{version}.deb"]
    done = service.container.run(*command, check=False)
    said = done.stdout + done.stderr

    assert (done.returncode == 0) is succeeds, said
    return said


def version_of(service: Service) -> str:
    found: str = service.get("/health").json()["version"]
    return found


def left(machine: Container) -> list[str]:
    """Return what there is of broadcasterd on a machine, by its name."""
    places = ("etc", "etc/systemd/system", "etc/systemd/system/*.wants", "var/lib/private")
    below = (
        "bin",
        "lib",
        "lib/systemd/system",
        "lib/systemd/catalog",
        "share/doc",
        "share/man/man?",
    )
    found = [
        path
        for place in (*places, "var/lib", *(f"usr/{each}" for each in below))
        for path in machine.root.glob(f"{place}/broadcasterd*")
    ]
    return sorted(path.relative_to(machine.root).as_posix() for path in found)


def test_a_package_brings_a_service_that_runs_and_leaves_nothing_once_it_is_purged(
    service: Service,
) -> None:
    machine = service.container
    said = machine.run("broadcasterd", "token", "--config", f"/{SETTINGS}", "--admin").stdout
    url = f"{service.url}/v1/sessions"

    assert "401" == machine.run("curl", "-so", "/dev/null", "-w", "%{http_code}", url).stdout

    bearer = ("-H", f"Authorization: Bearer {said.strip()}")

    assert "200" == (
        machine.run("curl", "-so", "/dev/null", "-w", "%{http_code}", *bearer, url).stdout
    )
    assert 0o600 == stat.S_IMODE((machine.root / "etc/broadcasterd/secret").stat().st_mode)
    assert str(service.pid) in machine.run("pgrep", "-x", "broadcasterd").stdout.split()
    assert "enabled" == machine.run("systemctl", "is-enabled", service.socket).stdout.strip()
    assert "" == machine.run("dpkg", "--verify", "broadcasterd").stdout

    machine.run(*APT, "remove", "broadcasterd")

    assert ["inactive"] * 2 == [
        machine.show(unit, "ActiveState") for unit in (service.unit, service.socket)
    ]
    assert {"broadcasterd.toml", "secret"} == {
        path.name for path in (machine.root / "etc/broadcasterd").iterdir()
    }
    assert [] == [path for path in left(machine) if path.startswith("usr/")]

    machine.run(*APT, "purge", "broadcasterd")

    assert [] == left(machine)


async def test_nobody_notices_upgrades_the_way_back_nor_an_upgrade_that_cannot_be(
    service: Service,
) -> None:
    service.configure()  # the file is the operator's from now on
    service.restart()
    offered = service.container.root / f"{SETTINGS}.dpkg-dist"
    seen, said = [], []

    def change_to(version: str, *, succeeds: bool = True) -> None:
        said.append(apt_install(service, version, succeeds=succeeds))
        seen.append((version_of(service), "# A newer one" in offered.read_text()))

    await unnoticed(
        service,
        partial(change_to, NEW),
        partial(change_to, OLD),
        partial(change_to, DEAD, succeeds=False),
        subscribers=SUBSCRIBERS,
        sessions=SESSIONS,
    )

    assert [(NEW, True), (OLD, False), (OLD, True)] == seen
    assert 'mode = "none"' in (service.container.root / SETTINGS).read_text()
    assert f"{DEAD} does not start, and {OLD} goes on" in said[-1]

    pid = service.pid
    service.write_configuration("[server]\nprot = 1\n")

    told = apt_install(service, NEW, succeeds=False)

    assert "server.prot: unknown key" in told
    assert f"{NEW} does not take /{SETTINGS}, and {OLD} goes on" in told
    assert (pid, OLD) == (service.pid, version_of(service))

    service.configure()
    service.container.run("dpkg", "--configure", "broadcasterd")

    assert NEW == version_of(service)
    assert [NEW, OLD] == sorted(
        (path.name for path in (service.container.root / LIBRARY / "releases").iterdir()),
        reverse=True,
    )
