"""`serve`, `check-config` and `reload`: the daemon, and the settings that it goes by."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import msgspec

from broadcasterd.cli.options import config_option, settings
from broadcasterd.cli.token import sign
from broadcasterd.config import Auth, Config, ConfigError
from broadcasterd.host.credentials import credentials_directory
from broadcasterd.observe.imports import import_structlog, uncollected

EXAMPLE_TTL = 24 * 3600  # seconds that a printed example works: a day's tinkering


@click.command()
@config_option
@click.option("--examples", is_flag=True, help="Once ready, print commands to try it with.")
def serve(*, config_file: Path | None, examples: bool) -> None:
    """Run the daemon in the foreground, until SIGTERM or SIGINT."""
    with uncollected():
        import_structlog()
        from broadcasterd import process

    def print_examples(urls: list[str]) -> None:
        _print_examples(urls, _example_token(settings(config_file).auth))

    try:
        process.main(
            partial(settings, config_file),
            on_ready=print_examples if examples else None,
        )
    except OSError as error:
        # Without the number that str(error) begins with; a file at fault is named.
        why = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
        raise click.ClickException(f"cannot serve: {why or error}") from error


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path, readable=False))
@config_option
def check_config(*, file: Path | None, config_file: Path | None) -> None:
    """Check the configuration that `serve` would use, and say what is wrong with it.

    FILE is another way to say --config FILE. Keys and certificates are read as well.
    """
    if file is not None and config_file is not None:
        raise click.UsageError("Say FILE or --config FILE, not both.")
    with uncollected():
        import_structlog()
        from broadcasterd.checks import check
        from broadcasterd.server.certificate import name_of_certificate

    config = settings(file or config_file)
    keys = check(config).names()
    if certificate := name_of_certificate(config.server):
        keys.append(f"certificate {certificate}")
    if os.geteuid() == 0 and "CREDENTIALS_DIRECTORY" not in os.environ:
        for name, path in _files_of(config, file or config_file):
            if not _others_may_read(path):
                click.echo(
                    f'broadcasterd: note: {name} = "{path}": root can read it, but not the user of'
                    " the service, unless systemd hands it over as a credential",
                    err=True,
                )
    click.echo("the configuration is good")
    for key in keys:  # as the record of a start or a reload names them
        click.echo(key)


@click.command()
def reload() -> None:
    """Have the daemon of a systemd unit reload, and say what was wrong if it refuses.

    `systemctl reload` runs it, with the daemon's $RUNTIME_DIRECTORY. To a daemon without a unit,
    send SIGHUP.
    """
    from broadcasterd.host.control import ask_to_reload
    from broadcasterd.host.credentials import made_at, were_renewed
    from broadcasterd.host.systemd import runtime_directory

    directory = runtime_directory(os.environ)
    if directory is None:
        raise click.UsageError(
            "$RUNTIME_DIRECTORY is not set: say `systemctl reload broadcasterd`, or send SIGHUP."
        )
    try:
        refused = ask_to_reload(directory)
    except OSError as error:
        raise click.ClickException(
            f"no daemon answers in {directory}: {error.strerror or error}"
        ) from error
    if refused:
        raise ConfigError(f"the reload was refused: {refused}")
    credentials = credentials_directory(os.environ)
    if credentials is not None and not were_renewed(credentials, made_at()):
        click.echo(
            "broadcasterd: note: systemd did not renew the credentials; a secret or a certificate"
            " that is another one needs a restart",
            err=True,
        )


def _files_of(config: Config, config_file: Path | None) -> Iterator[tuple[str, Path]]:
    if config_file is not None:
        yield "--config", config_file
    for section in ("auth", "server", "alerts"):
        for key, value in msgspec.structs.asdict(getattr(config, section)).items():
            if isinstance(value, Path):
                yield f"{section}.{key}", value


def _others_may_read(path: Path) -> bool:
    whole = path.resolve()
    return all(map(_opens, whole.parents)) and bool(whole.stat().st_mode & stat.S_IROTH)


def _opens(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IXOTH)


def _example_token(auth: Auth) -> str | None:
    """Return a token for the examples, or a variable to put one in; None if none is needed."""
    if auth.mode == "none":
        return None
    demo = {"subscribe": ["demo"], "publish": ["demo"]}
    try:
        return sign(auth, {"broadcaster": demo}, ttl=EXAMPLE_TTL)
    except ConfigError:  # only others can sign
        return "$TOKEN"


def _print_examples(urls: list[str], token: str | None) -> None:
    """Print one line that subscribes and one that publishes, each to paste as it is."""
    bearer = "" if token is None else f'-H "Authorization: Bearer {token}" '
    events = shlex.quote(f"{urls[0].rstrip('/')}/v1/sessions/demo/events")
    event = json.dumps({"data": {"hello": "world"}, "event": "greeting"})
    click.echo("# subscribe, in one terminal:")
    click.echo(f"curl -N {bearer}{events}")
    click.echo("# publish, in another:")
    json_type = "-H 'Content-Type: application/json'"
    click.echo(f"curl {bearer}{json_type} -d {shlex.quote(event)} {events}")
