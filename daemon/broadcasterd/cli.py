"""The command line: `serve`, `check-config`, `publish`, `tail` and `token`.

Owns argv, the exit status and what a person at a terminal reads; `main` is the only caller of
`sys.exit`. Exit statuses: 0 is success, 2 bad usage or bad configuration, 1 anything else.

Each command imports what it needs when it runs: a daemon does not carry an HTTP client around, and
`tail` does not wait for a web framework.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar, cast
from urllib.parse import urlsplit

import click
import msgspec

from broadcasterd.access.grants import Grant
from broadcasterd.config import Auth, Config, ConfigError, load
from broadcasterd.core.session_name import check_session_name
from broadcasterd.errors import BadRequest
from broadcasterd.host.allocator import use_allocator_that_gives_back
from broadcasterd.host.credentials import credentials_directory, with_credentials
from broadcasterd.observe.printable import printable, printable_lines
from broadcasterd.quantities import SECONDS, quantity

DEFAULT_URL = "http://127.0.0.1:8000"
EXAMPLE_TTL = 24 * 3600  # seconds that a printed example works: a day's tinkering

_INTERRUPTED = 130  # as shells count it: 128 + SIGINT


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    if argv is None and sys.argv[1:2] == ["serve"]:  # the process is ours, and will live long
        use_allocator_that_gives_back()
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


# --- what several commands take --------------------------------------------------------------

Command = TypeVar("Command", bound=Callable[..., object])


def _session_name(_: click.Context, __: click.Parameter, value: str) -> str:
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


def _header_text(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    # The value itself is not repeated: it may be a token.
    if value is not None and not (value.isascii() and value.isprintable()):
        raise click.BadParameter(f"{parameter.name}: expected printable ASCII")
    return value


def _config_option(command: Command) -> Command:
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(path_type=Path, readable=False),
        help="The configuration file; without it $BROADCASTERD_CONFIG, or else the defaults.",
    )(command)


def _daemon_options(command: Command) -> Command:
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
        callback=_header_text,
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="broadcasterd", message="%(prog)s %(version)s")
def commands() -> None:
    """Broadcast events over Server-Sent Events."""


# --- the daemon ------------------------------------------------------------------------------


def _settings(config_file: Path | None) -> Config:
    """Return the settings in force for a command: of the file, the environment and systemd."""
    return with_credentials(load(config_file, os.environ), credentials_directory(os.environ))


@commands.command()
@_config_option
@click.option("--examples", is_flag=True, help="Once ready, print commands to try it with.")
def serve(*, config_file: Path | None, examples: bool) -> None:
    """Run the daemon in the foreground, until SIGTERM or SIGINT."""
    from broadcasterd import daemon

    def print_examples(urls: list[str]) -> None:
        _print_examples(urls, _example_token(_settings(config_file).auth))

    try:
        daemon.main(
            partial(_settings, config_file),
            on_ready=print_examples if examples else None,
        )
    except OSError as error:
        # Without the number that str(error) begins with; a file at fault is named.
        why = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
        raise click.ClickException(f"cannot serve: {why or error}") from error


@commands.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path, readable=False))
@_config_option
def check_config(*, file: Path | None, config_file: Path | None) -> None:
    """Check the configuration that `serve` would use, and say what is wrong with it.

    FILE is another way to say --config FILE. Keys and certificates are read as well.
    """
    if file is not None and config_file is not None:
        raise click.UsageError("Say FILE or --config FILE, not both.")
    from broadcasterd import daemon
    from broadcasterd.server.certificate import name_of_certificate

    config = _settings(file or config_file)
    keys = daemon.check(config).names()
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


@commands.command()
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
        return _sign(auth, {"broadcaster": demo}, ttl=EXAMPLE_TTL)
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


# --- its clients -----------------------------------------------------------------------------


def _seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    seconds = quantity(value if value[-1:].isalpha() else f"{value}s", SECONDS)
    if seconds is None:
        raise click.BadParameter(f"{value!r}: expected seconds, or a duration like 10m")
    return seconds


def _tell(text: str) -> None:
    click.echo(f"broadcasterd: {printable(text)}", err=True)


@commands.command()
@click.argument("session", callback=_session_name)
@click.argument("stdin", required=False, type=click.Choice(["-"]), metavar="[-]")
@click.option("--data", help='What to broadcast; "-" is the same as the argument "-".')
@click.option("--event", help="The events' name; without it they are plain messages.")
@click.option("--ndjson", is_flag=True, help="The lines of standard input are events in JSON.")
@click.option(
    "--retry-for",
    metavar="DURATION",
    default="60s",
    show_default=True,
    callback=_seconds,
    help="How long to send again what is not acknowledged: seconds, or 10m and the like; 0 is"
    " never. Less than sessions.event_ttl, or events may be broadcast twice.",
)
@_daemon_options
def publish(
    *,
    session: str,
    stdin: str | None,
    data: str | None,
    event: str | None,
    ndjson: bool,
    retry_for: float,
    url: str,
    token: str | None,
    proxy: str | None,
) -> None:
    """Broadcast an event to SESSION, or with "-" each line of standard input as it arrives.

    Each is sent until the daemon has it, also through restarts, and is broadcast once and in order.
    """
    from broadcasterd import client

    streams = stdin is not None or data == "-"
    if stdin is not None and data not in {None, "-"}:
        raise click.UsageError('Take the data from --data or from "-", not both.')
    if ndjson and not streams:
        raise click.UsageError('--ndjson reads standard input: say "-".')
    if ndjson and event is not None:
        raise click.UsageError("--ndjson lines name their events themselves: leave --event out.")
    if not streams and data is None:
        raise click.UsageError('Say --data TEXT, or "-" to read standard input.')
    try:
        with client.Publisher(
            client.events_url(url, session),
            retry_for=retry_for,
            token=token,
            proxy=proxy,
            notify=_tell,
        ) as publisher:
            if streams:
                source = cast("client.Source", sys.stdin.buffer)  # of more than its type says
                publisher.publish_lines(source, event=event, ndjson=ndjson)
            else:
                publisher.publish({"data": data} | ({} if event is None else {"event": event}))
    except client.RequestFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(publisher.receipt.as_json())


@commands.command()
@click.argument("session", callback=_session_name)
@click.option(
    "--from",
    "start",
    metavar="START",
    help="Where to begin: start (everything retained, the default), now, last:N, or a time.",
)
@click.option("--last-event-id", callback=_header_text, help="Begin after this event instead.")
@click.option("--json", "as_json", is_flag=True, help="Print id, event and data, as JSON lines.")
@_daemon_options
def tail(
    *,
    session: str,
    start: str | None,
    last_event_id: str | None,
    as_json: bool,
    url: str,
    token: str | None,
    proxy: str | None,
) -> None:
    """Print the data of SESSION's events as they arrive, until the session ends.

    A connection that breaks is made again and goes on where it was.
    """
    from broadcasterd import client

    def show(text: str) -> None:
        # Bytes, so that the terminal's locale has no say; flushed by click each time.
        click.echo((printable_lines(text) if sys.stdout.isatty() else text).encode())

    events = client.Tail(
        client.events_url(url, session),
        start=start,
        last_event_id=last_event_id,
        token=token,
        proxy=proxy,
        notify=_tell,
    )
    try:
        for event in events:
            if event.by_daemon:
                _tell(f"{event.event.removeprefix(client.OWN_PREFIX)}: {event.data}")
            else:
                show(event.as_json() if as_json else event.data)
    except client.RequestFailed as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        # The reader has had enough (`| head`). The interpreter flushes the rest of standard output
        # as it exits and would complain: let it do so into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- tokens ----------------------------------------------------------------------------------


@commands.command()
@click.option("--subscribe", multiple=True, metavar="GLOB", help="Sessions to listen to.")
@click.option(
    "--publish", "publish_", multiple=True, metavar="GLOB", help="Sessions to publish to."
)
@click.option("--admin", is_flag=True, help="May list sessions and end a subject's streams.")
@click.option("--subject", help="Whom the token is for (its `sub` claim).")
@click.option(
    "--ttl",
    default=3600,
    show_default=True,
    type=click.IntRange(min=1),
    help="Seconds until it expires.",
)
@click.option("--kid", help="Sign with this secret of auth.jwks_file instead.")
@_config_option
def token(
    *,
    subscribe: tuple[str, ...],
    publish_: tuple[str, ...],
    admin: bool,
    subject: str | None,
    ttl: int,
    kid: str | None,
    config_file: Path | None,
) -> None:
    """Print a token, signed with the secret of auth.secret_file, or one of auth.jwks_file.

    A GLOB is a session's name, in which * stands for any run of characters. --subscribe and
    --publish may be given more than once.
    """
    if not (subscribe or publish_ or admin):
        raise click.UsageError("A token without --subscribe, --publish or --admin opens nothing.")
    granted = {"subscribe": subscribe, "publish": publish_, "admin": admin}
    claims = {"broadcaster": granted} | ({} if subject is None else {"sub": subject})
    try:
        Grant.from_claims(claims)
    except ValueError as error:
        raise click.UsageError(f"The daemon would refuse this token: {error}.") from error
    click.echo(_sign(_settings(config_file).auth, claims, ttl=ttl, kid=kid))


def _sign(auth: Auth, claims: Mapping[str, object], *, ttl: int, kid: str | None = None) -> str:
    """Sign a token that the daemon of this configuration accepts for `ttl` seconds."""
    import jwt

    from broadcasterd.access.key_files import signing_key

    algorithm, secret = signing_key(auth, kid)
    now = int(time.time())
    asked = {"aud": auth.audience, "iss": auth.issuer}
    asked = {claim: value for claim, value in asked.items() if value is not None}
    return jwt.encode(
        {**claims, **asked, "iat": now, "exp": now + ttl},
        secret,
        algorithm,
        headers=None if kid is None else {"kid": kid},
    )
