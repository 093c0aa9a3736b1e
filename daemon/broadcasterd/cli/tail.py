"""`tail`: a session's events as they arrive."""

from __future__ import annotations

import os
import sys

import click

from broadcasterd.cli.imports import import_client
from broadcasterd.cli.options import daemon_options, header_text, session_name, tell
from broadcasterd.observe.printable import printable_lines


@click.command()
@click.argument("session", callback=session_name)
@click.option(
    "--from",
    "start",
    metavar="START",
    help="Where to begin: start (everything retained, the default), now, last:N, or a time.",
)
@click.option("--last-event-id", callback=header_text, help="Begin after this event instead.")
@click.option("--json", "as_json", is_flag=True, help="Print id, event and data, as JSON lines.")
@daemon_options
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
    import_client("trio")
    from broadcasterd import client

    def show(text: str) -> None:
        # Bytes, so that the terminal's locale has no say; flushed by click each time.
        click.echo((printable_lines(text) if sys.stdout.isatty() else text).encode())

    try:
        with (
            client.Client(url, token=token, proxy=proxy, notify=tell) as daemon,
            daemon.subscribe(session, start=start, last_event_id=last_event_id) as events,
        ):
            for event in events:
                if event.by_daemon:
                    tell(f"{event.event.removeprefix(client.OWN_PREFIX)}: {event.data}")
                else:
                    show(event.as_json() if as_json else event.data)
    except client.RequestFailed as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        # The reader has had enough (`| head`). The interpreter flushes the rest of standard output
        # as it exits and would complain: let it do so into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
