"""`publish`: one event, or the lines of standard input as they come."""

from __future__ import annotations

import sys
from typing import cast

import click

from broadcasterd.cli.imports import import_client
from broadcasterd.cli.options import daemon_options, seconds, session_name, tell


@click.command()
@click.argument("session", callback=session_name)
@click.argument("stdin", required=False, type=click.Choice(["-"]), metavar="[-]")
@click.option("--data", help='What to broadcast; "-" is the same as the argument "-".')
@click.option("--event", help="The events' name; without it they are plain messages.")
@click.option("--ndjson", is_flag=True, help="The lines of standard input are events in JSON.")
@click.option(
    "--retry-for",
    metavar="DURATION",
    default="60s",
    show_default=True,
    callback=seconds,
    help="How long to send again what is not acknowledged: seconds, or 10m and the like; 0 is"
    " never. Less than sessions.event_ttl, or events may be broadcast twice.",
)
@daemon_options
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
    import_client("trio")
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
        with client.Client(
            url, token=token, retry_for=retry_for, proxy=proxy, notify=tell
        ) as daemon:
            if streams:
                source = cast("client.Source", sys.stdin.buffer)  # of more than its type says
                publisher = daemon.publisher(session)
                receipt = publisher.publish_lines(source, event=event, ndjson=ndjson)
            else:
                receipt = daemon.publish(session, data, event=event)
    except client.RequestFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(receipt.as_json())
