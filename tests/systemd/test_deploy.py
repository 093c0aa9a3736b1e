"""`make deploy-…` and `make rollback` inside a container, as an operator runs them there.

A container has no package index: the releases are there before, as after `make release`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import broadcasterd
from tests.support.container import Container, until, why_not
from tests.support.releases import another, edit, replace
from tests.support.service import Service
from tests.support.throughout import unnoticed
from tests.support.tools import lack

log = logging.getLogger(__name__)

OLD = broadcasterd.__version__
NEW = "99.1"
DEAD = "99.2"
DUMB = "99.3"
HUNG = "99.4"
"""The releases there are, no more than are kept. Three are broken: one fails when it starts, one
cannot publish, and one never gets ready where systemd has a socket for it, so not on trial."""

NEW_UNIT = "Broadcasts still more events"
IN_ITS_PLACE = '#!/bin/sh\n[ "$1" = serve ] && [ "$LISTEN_FDS" ] && exec '

CHECKOUT = "srv/broadcasterd"
MAKE = ("make", "-C", f"/{CHECKOUT}", "PREFIX=/usr")
NEW_SETTING = "class New(Section, frozen=True, kw_only=True):\n    setting: int = 0"
LIBRARY = "usr/lib/broadcasterd"
SUBSCRIBERS, SESSIONS = 50, 5
"""A thousand are in test_handover.py."""


@pytest.fixture(scope="module")
def releases(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a newer release, and those that are broken, of the one that is installed."""
    made = tmp_path_factory.mktemp("releases")
    for version in (NEW, DEAD, DUMB, HUNG):
        another(tree / LIBRARY / "releases" / OLD, made / version)
        edit(made / version, "__init__.py", f'"{OLD}"', f'"{version}"')
    edit(
        made / DEAD,
        "process.py",
        "    notifier =",
        "    raise RuntimeError('broken')\n    notifier =",
    )
    edit(made / DUMB, "api/publish.py", "async def publish(", "async def publish(forgotten, ")
    launcher = made / HUNG / "bin/broadcasterd"
    replace(launcher, launcher.read_text().replace("#!/bin/sh\n", f"{IN_ITS_PLACE}sleep 1000\n"))
    edit(made / NEW, "config/sections.py", "class Log(", f"{NEW_SETTING}\n\n\nclass Log(")
    edit(
        made / NEW,
        "config/sections.py",
        "    log: Log = Log()\n",
        "    log: Log = Log()\n    new: New = New()\n",
    )
    unit = made / NEW / "systemd/broadcasterd.service"
    replace(unit, re.sub("(?m)^Description=.*$", f"Description={NEW_UNIT}", unit.read_text()))
    return made


@contextmanager
def booted_with(sdist: Path, tree: Path, *releases: Path) -> Iterator[Container]:
    """Boot a container with a checkout, with what is installed, and with more releases beside."""
    if reason := why_not():
        lack(reason)
    with Container.booted() as container:
        copies = [([*tree.iterdir()], container.root), ([sdist], container.root / CHECKOUT)]
        if releases:
            copies.append(([*releases], container.root / LIBRARY / "releases"))
        for sources, target in copies:
            subprocess.run(["cp", "--archive", *sources, target], check=True)
        container.run("systemctl", "daemon-reload")
        yield container


@pytest.fixture(scope="module")
def deploying(sdist: Path, tree: Path, releases: Path) -> Iterator[Container]:
    """Boot a container with a checkout, and with all releases side by side."""
    with booted_with(sdist, tree, *releases.iterdir()) as container:
        yield container


@pytest.fixture(scope="module")
def installed(deploying: Container) -> Iterator[Service]:
    """Return production, which one test uses after another."""
    with Service(deploying).installed() as service:
        yield service


@pytest.fixture
def production(installed: Service) -> Service:
    """Return production, started from the old release, which has no release before it."""
    library = installed.container.root / LIBRARY
    for version in (OLD, NEW, DEAD, DUMB, HUNG):
        (library / "releases" / version / "before").unlink(missing_ok=True)
    if OLD != current(installed):
        installed.begin_anew()
    for link in ("current", "staging"):
        (library / link).unlink()
        (library / link).symlink_to(f"releases/{OLD}")
    # One file for all: a release on trial must not need it.
    installed.serve(engine={"kind": "sqlite"})
    return installed


def run_make(
    service: Service, target: str, version: str = "", *settings: str, succeeds: bool = True
) -> str:
    """Run make in the checkout inside; return what it says."""
    named = [f"VERSION={version}"] if version else []
    done = service.container.run(*MAKE, target, *named, *settings, check=False)
    said = done.stdout + done.stderr

    assert (done.returncode == 0) is succeeds, said
    return said


def version_of(service: Service) -> str:
    """Return what the daemon says that it is."""
    found: str = service.get("/health").json()["version"]
    return found


def current(service: Service, link: str = "current") -> str:
    """Return the release that the next start would be from."""
    return (service.container.root / LIBRARY / link).readlink().name


async def test_nobody_notices_a_deployment_a_rollback_nor_a_release_that_fails(
    production: Service,
) -> None:
    assert f"no release before {OLD}" in run_make(production, "rollback", succeeds=False)

    silence = await unnoticed(
        production,
        partial(go_on_with_a_newer_release, production),
        partial(stay_where_the_next_one_fails_on_trial, production),
        partial(go_back_a_step_with_the_configuration, production),
        partial(report_the_way_back_which_was_the_last_step, production),
        partial(come_back_where_the_next_one_fails_in_its_place, production),
        subscribers=SUBSCRIBERS,
        sessions=SESSIONS,
    )

    log.info("the longest silence of %d subscribers was %.2f s", SUBSCRIBERS, silence)


def go_on_with_a_newer_release(production: Service) -> None:
    production.configure(sessions={"retry_ms": 1234})
    run_make(production, "deploy-production", NEW)

    assert (NEW, NEW) == (version_of(production), current(production))
    assert NEW_UNIT == production.show("Description"), "the units are the release's"


def stay_where_the_next_one_fails_on_trial(production: Service) -> None:
    said = run_make(production, "deploy-production", DUMB, succeeds=False)

    assert f"{DUMB} is not deployed, and nothing was touched" in said
    assert "expected 200, not 500" in said
    assert (NEW, NEW) == (version_of(production), current(production))
    assert NEW_UNIT == production.show("Description")
    assert [f"{NEW}  current", f"{OLD}  staging, previous"] == sorted(
        (line for line in run_make(production, "releases").splitlines() if "  " in line),
        reverse=True,
    )


def go_back_a_step_with_the_configuration(production: Service) -> None:
    production.configure(new={"setting": 1})  # the older release knows no such thing
    said = run_make(production, "rollback")

    assert f"{OLD} does not take /etc/broadcasterd/broadcasterd.toml" in said
    assert (OLD, OLD) == (version_of(production), current(production))
    assert NEW_UNIT != production.show("Description")
    etc = production.container.root / "etc/broadcasterd"
    assert "retry_ms = 1234" in (etc / "broadcasterd.toml").read_text()
    aside = etc / f"broadcasterd.toml.refused-by-{OLD}"
    assert "setting = 1" in aside.read_text()
    aside.unlink()


def report_the_way_back_which_was_the_last_step(production: Service) -> None:
    said = run_make(production, "rollback-report", "", "REASON=it's $HOME's \"fault\"")
    [path] = re.findall(r"^wrote /(.+)$", said, re.MULTILINE)
    written = (production.container.root / path).read_text()

    assert f"release before:  {NEW}\nrelease after:   {OLD}\n" in written
    assert """    it's $HOME's "fault"\n""" in written
    assert re.search(rf"^    .+ broadcasterd\[\d+\]: .*{re.escape(NEW)}", written, re.MULTILINE)

    assert f"no release before {OLD}" in run_make(production, "rollback", succeeds=False)
    assert OLD == version_of(production)


def come_back_where_the_next_one_fails_in_its_place(production: Service) -> None:
    launcher = production.container.root / LIBRARY / "releases" / HUNG / "bin/broadcasterd"
    hangs = launcher.read_text()
    replace(launcher, hangs.replace("sleep 1000", "false"))
    try:
        said = run_make(production, "deploy-production", HUNG, succeeds=False)
    finally:
        replace(launcher, hangs)

    assert f"{HUNG} FAILED" in said
    assert f"production runs {OLD} again" in said
    assert (OLD, OLD) == (version_of(production), current(production))


def test_what_would_not_serve_or_comes_beside_another_is_found_before_anything_is_touched(
    production: Service,
) -> None:
    pid = production.pid
    directory = os.open(production.container.root / LIBRARY, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        for target, version in [("deploy-production", NEW), ("rollback", "")]:
            said = run_make(production, target, version, succeeds=False)

            assert "another deployment is under way" in said
    finally:
        os.close(directory)

    said = run_make(production, "deploy-production", DEAD, succeeds=False)

    assert f"{DEAD} is not deployed, and nothing was touched" in said
    assert "RuntimeError: broken" in said

    said = run_make(production, "deploy-production", "99.9", succeeds=False)
    assert f"there is no release 99.9; there are: {OLD}, {NEW}" in said

    said = run_make(production, "install", NEW, succeeds=False)
    assert f"production runs {OLD}: `make deploy-production`" in said

    production.write_configuration("[server]\nprot = 1\n")
    assert "server.prot" in run_make(production, "deploy-production", NEW, succeeds=False)
    assert (pid, OLD) == (production.pid, current(production))


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_deployment_that_is_ended_leaves_one_release_or_the_other(
    signal: str, production: Service
) -> None:
    """The new release never gets ready, so that it is always in the same place that it ends."""
    deploying = [*MAKE, "deploy-production", f"VERSION={HUNG}"]
    patient = "--property=TimeoutStopSec=180"  # when make is gone, systemd waits for its children
    production.container.run("systemd-run", "--unit=deploying", "--collect", patient, *deploying)
    until(lambda: production.show("ActiveState") == "activating", within=60)

    assert HUNG == current(production)

    production.container.run("systemctl", "kill", f"--signal={signal}", "deploying")
    until(lambda: production.container.show("deploying", "ActiveState") == "inactive", within=180)
    said = production.container.run("journalctl", "--unit=deploying", "--output=cat").stdout
    if signal == "TERM":
        assert f"production runs {OLD} again, as before" in said, said
    else:
        assert HUNG == current(production), said

        run_make(production, "rollback")
    assert (OLD, OLD) == (version_of(production), current(production))


def test_staging_goes_ahead_of_production(production: Service) -> None:
    before = production.get("/health").json()["sessions"]
    with Service(production.container, "broadcasterd@staging").installed() as staging:
        (production.container.root / "etc/broadcasterd/staging.toml").unlink()
        said = run_make(production, "deploy-staging", NEW)

        assert "without a token: 401" in said, "it has a configuration, and a secret of its own"
        assert (NEW, OLD) == (version_of(staging), version_of(production))
        assert "a ticket opens one stream" in run_make(staging, "test-staging")
        assert f"version {OLD}" in run_make(production, "test-production-smoke")

        few = ["SUBSCRIBERS=10", "RATE=100", "DURATION=0.2"]
        said = run_make(staging, "load-test-staging", "", *few, "HEALTH_MS=10000")

        assert "200 deliveries" in said
        assert "FAILED: /health took" in run_make(
            staging, "load-test-staging", "", *few, "HEALTH_MS=0", succeeds=False
        )

        run_make(staging, "deploy-staging", DUMB, succeeds=False)

        assert (NEW, NEW) == (version_of(staging), current(staging, "staging"))
        sessions = [each.get("/health").json()["sessions"] for each in (staging, production)]
        assert [0, before] == sessions, "those of checks are removed"


def test_what_is_installed_on_the_machine_itself_is_uninstalled(sdist: Path, tree: Path) -> None:
    """It is stopped; its configuration and its state stay."""
    with booted_with(sdist, tree) as machine, Service(machine).installed() as service:
        (machine.root / "usr/bin/broadcasterd").unlink()

        assert f"release {OLD} is installed" in run_make(service, "install")

        service.start()

        assert OLD == version_of(service)

        machine.run("systemctl", "enable", "broadcasterd@third.service")
        said = run_make(service, "uninstall")

        assert "left where it is: /etc/broadcasterd\n" in said
        enabled = machine.root.glob("etc/systemd/system/*.wants/broadcasterd*")
        assert [] == list(enabled), "no link leads nowhere"
        places = ("bin", "lib", "lib/systemd/system", "lib/systemd/catalog", "share/doc")

        assert ["inactive"] * 2 == [
            machine.show(unit, "ActiveState") for unit in (service.unit, service.socket)
        ]
        assert [] == [
            *(left for place in places for left in machine.root.glob(f"usr/{place}/broadcasterd*"))
        ]
        assert (machine.root / "etc/broadcasterd/broadcasterd.toml").exists()
        assert (machine.root / "var/lib/private/broadcasterd").is_dir()
