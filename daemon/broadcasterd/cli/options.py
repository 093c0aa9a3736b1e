"""Options and arguments that several commands take, and how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import click

from broadcasterd.config import Config, load
from broadcasterd.core.session_name import check_session_name
from broadcasterd.errors import BadRequest
from broadcasterd.host.credentials import credentials_directory, with_credentials
from broadcasterd.observe.printable import printable
from broadcasterd.quantities import SECONDS, quantity

DEFAULT_URL = "http://127.0.0.1:8000"

Command = TypeVar("Command", bound=Callable[..., object])


def session_name(_: click.Context, __: click.Parameter, value: str) -> str:
    """Check an argument that names a session."""
    try:
        return check_session_name(value)
    except BadRequest as error:
        raise click.BadParameter(error.detail) from error


def _http_url(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter(f"{value!r}: expected a URL like {DEFAULT_URL}")
    return value


def _proxy_url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _http_url(context, parameter, value)


def header_text(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check an option that becomes the value of a header field."""
    # The value itself is not repeated: it may be a token.
    if value is not None and not (value.isascii() and value.isprintable()):
        raise click.BadParameter(f"{parameter.name}: expected printable ASCII")
    return value


def config_option(command: Command) -> Command:
    """Add ``--config``."""
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(path_type=Path, readable=False),
        help="The configuration file; without it $BROADCASTERD_CONFIG, or else the defaults.",
    )(command)


def settings(config_file: Path | None) -> Config:
    """Return the settings in force for a command: of the file, the environment and systemd."""
    return with_credentials(load(config_file, os.environ), credentials_directory(os.environ))


def daemon_options(command: Command) -> Command:
    """Add ``--url``, ``--token`` and ``--proxy``: where the daemon is, and how it is asked."""
    url = click.option(
        "--url",
        envvar="BROADCASTERD_URL",
        default=DEFAULT_URL,
        show_default=True,
        callback=_http_url,
        help="Where the daemon is; also $BROADCASTERD_URL.",
    )
    token = click.option(
        "--token",
        envvar="BROADCASTERD_TOKEN",
        callback=header_text,
        help="Sent as a bearer token; also $BROADCASTERD_TOKEN, which `ps` does not show.",
    )
    proxy = click.option(
        "--proxy",
        metavar="URL",
        callback=_proxy_url,
        help="Ask through this proxy, instead of those of $HTTP_PROXY, $HTTPS_PROXY, $ALL_PROXY and"
        " $NO_PROXY, which are not asked for a daemon on loopback.",
    )
    return url(token(proxy(command)))


def seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    """Read an option that is a duration; a mere number is seconds."""
    found = quantity(value if value[-1:].isalpha() else f"{value}s", SECONDS)
    if found is None:
        raise click.BadParameter(f"{value!r}: expected seconds, or a duration like 10m")
    return found


def tell(text: str) -> None:
    """Say something to the person at the terminal, aside from what the command prints."""
    click.echo(f"broadcasterd: {printable(text)}", err=True)
