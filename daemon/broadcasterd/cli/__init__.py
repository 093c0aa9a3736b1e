"""The command line: a file for each command, or for two that belong together.

Owns argv, the exit status and what a person at a terminal reads; `main` is the only caller of
`sys.exit`. Exit statuses: 0 is success, 2 bad usage or bad configuration, 1 anything else.

Each command imports what it needs when it runs: a daemon does not carry an HTTP client around, and
`tail` does not wait for a web framework.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from broadcasterd.cli import figures, publish, serve, tail, token
from broadcasterd.config import SECRET_VARIABLE, ConfigError
from broadcasterd.host.process import hide_variable, take_name

_INTERRUPTED = 130  # as shells count it: 128 + SIGINT


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    if argv is None and sys.argv[1:2] == ["serve"]:  # the process is ours, and will live long
        take_name("broadcasterd")
        hide_variable(SECRET_VARIABLE)
    sys.exit(_run(argv))


def _run(argv: Sequence[str] | None) -> int:
    try:
        result = commands.main(argv, prog_name="broadcasterd", standalone_mode=False)
    except ConfigError as error:
        for problem in str(error).splitlines():
            click.echo(f"broadcasterd: {problem}", err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _INTERRUPTED
    return result if isinstance(result, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="broadcasterd", message="%(prog)s %(version)s")
def commands() -> None:
    """Broadcast events over Server-Sent Events."""


for command in (
    *(serve.serve, serve.check_config, serve.reload),
    *(publish.publish, tail.tail, token.token),
    *(figures.stats, figures.sessions, figures.top),
):
    commands.add_command(command)
