"""The command line. Exit status 0 is success, 1 is not, 2 is bad usage."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from deployment import functional
from deployment.deploy import INTERRUPTIONS, deploy, ignore_interruptions, install, rollback
from deployment.http import Client
from deployment.instance import INSTANCES, Instance
from deployment.releases import DeploymentError, Releases
from deployment.smoke import SESSIONS, run, smoke


def main() -> int:
    """Do what is asked for; return the exit status."""
    arguments = _parser().parse_args()
    releases = Releases(arguments.prefix)
    for each in INTERRUPTIONS:
        signal.signal(each, interrupt)
    try:
        match arguments.command:
            case "install":
                install(releases, arguments.version)
            case "rollback":
                rollback(releases, say)
            case "deploy":
                deploy(releases, INSTANCES[arguments.instance], arguments.version, say)
            case _:
                test(
                    releases,
                    INSTANCES[arguments.instance],
                    url=arguments.url,
                    thorough=arguments.thorough,
                )
    except (DeploymentError, OSError, KeyboardInterrupt) as error:
        say(f"FAILED: {str(error) or 'interrupted'}")
        return 1
    return 0


def test(releases: Releases, instance: Instance, *, url: str | None, thorough: bool) -> None:
    """Make checks of an instance as it is: of this machine, or of another at a URL.

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
    """Be interrupted once."""
    ignore_interruptions()
    raise KeyboardInterrupt


def say(what: str) -> None:
    """Print a line, at once."""
    print(what, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deployment", description=__doc__)
    parser.add_argument("--prefix", type=Path, default=Path("/usr"), help="where it is installed")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install").add_argument("version")
    commands.add_parser("rollback")
    deploying = commands.add_parser("deploy")
    deploying.add_argument("instance", choices=INSTANCES)
    deploying.add_argument("version")
    testing = commands.add_parser("test")
    testing.add_argument("instance", choices=INSTANCES)
    testing.add_argument("--url", help="another machine's; the token is $BROADCASTERD_TOKEN then")
    testing.add_argument("--thorough", action="store_true", help="ask for more than a deployment")
    return parser


if __name__ == "__main__":
    sys.exit(main())
