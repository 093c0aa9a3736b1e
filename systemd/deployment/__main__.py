"""The command line. Exit status 0 is success, 1 is not, 2 is bad usage."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from deployment import functional
from deployment.analysis import analyse
from deployment.build import CHECKOUT, Checkout, release
from deployment.deb import deb
from deployment.deploy import (
    INTERRUPTIONS,
    check_nothing_runs,
    deploy,
    ignore_interruptions,
    install,
    rollback,
)
from deployment.http import Client
from deployment.installation import configure, link_to_current, runs_systemd, uninstall
from deployment.instance import INSTANCES, PRODUCTION, Instance
from deployment.layout import THIS_MACHINE, Layout
from deployment.releases import DeploymentError, Releases
from deployment.smoke import SESSIONS, run, smoke


def main() -> int:
    """Do what is asked for; return the exit status."""
    arguments = _parser().parse_args()
    # `make` has Python find this package in the checkout; no other program is to look there.
    os.environ.pop("PYTHONPATH", None)
    # What is installed is for everybody to read, whatever root's shell makes of its own files.
    os.umask(0o022)
    for each in INTERRUPTIONS:
        signal.signal(each, interrupt)
    try:
        do(arguments, Layout(arguments.prefix, arguments.destdir))
    except (DeploymentError, OSError, KeyboardInterrupt) as error:
        say(f"FAILED: {str(error) or 'interrupted'}")
        return 1
    return 0


def do(arguments: argparse.Namespace, layout: Layout) -> None:
    """Do what is asked for.

    Raises:
        DeploymentError: it did not work.

    """
    releases = Releases(layout.here(layout.prefix))
    match arguments.command:
        case "release":
            with releases.locked(first=True):
                say(f"release {release(Checkout(), layout, arguments.version, say)} is there")
        case "releases":
            for version, uses in releases.all():
                say(f"{version}  {', '.join(uses)}".rstrip())
        case "install":
            with releases.locked(first=True):
                put_under_all(releases, layout, arguments.version)
        case "deb":
            say(f"made {package(layout, arguments.version, arguments.into)}")
        case "rollback-report":
            reason = os.environ.get("ROLLBACK_REASON", "")
            say(f"wrote {analyse(releases, layout, reason, arguments.into)}")
        case "uninstall":
            remove(layout)
        case "deploy":
            with releases.locked():
                go_on(releases, layout, INSTANCES[arguments.instance], arguments.version)
        case "rollback":
            with releases.locked():
                rollback(releases, say)
        case _:
            instance = INSTANCES[arguments.instance]
            test(releases, instance, url=arguments.url, thorough=arguments.thorough)


def put_under_all(releases: Releases, layout: Layout, version: str | None) -> None:
    """Install a release, where nothing runs that would have it under its feet.

    Raises:
        DeploymentError: something does, or there is no such release and it cannot be made.

    """
    version = release(Checkout(), layout, version, say)
    if runs_systemd(layout):
        check_nothing_runs(releases, version)
    configure(PRODUCTION, layout)
    install(releases, version)
    link_to_current(layout)
    say(f"release {version} is installed")


def remove(layout: Layout) -> None:
    """Remove what is installed, and say what is left.

    Raises:
        DeploymentError: systemd does not take note of it.

    """
    for left in uninstall(layout):
        say(f"left where it is: {left}")


def package(layout: Layout, version: str | None, into: Path) -> Path:
    """Make a package of this checkout; of a tree, where that has the release already.

    Raises:
        DeploymentError: it cannot be made.

    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) if layout.is_this_machine else layout.root
        tree = Layout(root=root)
        releases = Releases(tree.here(tree.prefix))
        with releases.locked(first=True):
            return deb(releases.path(release(Checkout(), tree, version, say)), into)


def go_on(releases: Releases, layout: Layout, instance: Instance, version: str | None) -> None:
    """Deploy a release that is there, or this checkout where none is named.

    Raises:
        DeploymentError: there is no such release, or it is not deployed.

    """
    if version:
        releases.path(version)  # or the error says which there are
    version = release(Checkout(), layout, version, say)
    if instance is not PRODUCTION:
        configure(instance, layout)
    deploy(releases, instance, version, say)


def test(releases: Releases, instance: Instance, *, url: str | None, thorough: bool) -> None:
    """Check an instance as it is: one of this machine, or another at a URL.

    Raises:
        DeploymentError: one of them failed.

    """
    if url:
        version, client = None, Client(url, os.environ.get("BROADCASTERD_TOKEN"))
    else:
        version = releases.in_use(instance.link)
        if version is None:
            raise DeploymentError(f"{instance.name} is not installed here: say URL=")
        client = Client(instance.url(), instance.token(releases.path(version), SESSIONS))
    run(client, [*smoke(version), *(functional.CHECKS if thorough else [])], say)


def interrupt(*_: object) -> None:
    """Take one interruption; the next ones are ignored."""
    ignore_interruptions()
    raise KeyboardInterrupt


def say(what: str) -> None:
    """Print a line, at once."""
    print(what, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deployment", description=__doc__)
    parser.add_argument(
        "--prefix", type=_absolute, default=Path("/usr/local"), help="where it is installed"
    )
    parser.add_argument(
        "--destdir", type=_root, default=THIS_MACHINE, help="a tree for another machine; its root"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    versioned = {
        name: commands.add_parser(name, help=help_text)
        for name, help_text in (
            ("release", "make a release of this checkout, without switching to it"),
            ("install", "have all instances start from a release the next time that they start"),
            ("deploy", "have an instance go on with a release"),
            ("deb", "make a package for Debian of this checkout"),
        )
    }
    commands.add_parser("releases", help="list the releases that are there, the newest first")
    commands.add_parser("uninstall", help="remove everything but configuration and state")
    commands.add_parser("rollback", help="have production go back to the release before")
    analysing = commands.add_parser(
        "rollback-report", help="write down why it went back: $ROLLBACK_REASON, and the records"
    )
    analysing.add_argument(
        "--into", type=Path, default=CHECKOUT / "build", help="where to put the report"
    )
    testing = commands.add_parser("test", help="make checks of an instance")
    for each in (versioned["deploy"], testing):
        each.add_argument("instance", choices=INSTANCES)
    for each in versioned.values():
        each.add_argument("version", nargs="?", help="a release that is there, or else a name")
    versioned["deb"].add_argument(
        "--into", type=Path, default=CHECKOUT / "dist", help="where to put the package"
    )
    testing.add_argument("--url", help="another machine's; the token is $BROADCASTERD_TOKEN then")
    testing.add_argument("--thorough", action="store_true", help="ask for more than a deployment")
    return parser


def _absolute(directory: str) -> Path:
    path = Path(directory)
    if not path.is_absolute():
        raise argparse.ArgumentTypeError(f"{directory!r} is not absolute")
    return path


def _root(directory: str) -> Path:
    return Path(directory or "/").absolute()


if __name__ == "__main__":
    sys.exit(main())
