"""`stats`, `sessions` and `top`: the figures of a moment, and as they go on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from broadcasterd.cli.imports import import_client
from broadcasterd.cli.options import daemon_options, seconds

if TYPE_CHECKING:
    from rich.console import Console

    from broadcasterd.client import AsyncClient, SessionFigures

ORDERS = {
    "subscribers": "subscribers",
    "events": "retained_events",
    "bytes": "retained_bytes",
    "age": "age_s",
    "idle": "idle_s",
}
"""What sessions may be sorted by, the largest first, and the figure that this is."""

MIN_INTERVAL_S = 0.1

WIDE, WIDEST = 100, 1000
"""Columns of a file or a pipe; and where nothing is to be cut that a program reads."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the answer of /stats as it is.")
@daemon_options
def stats(*, as_json: bool, url: str, token: str | None, proxy: str | None) -> None:
    """Print the figures of this moment. It takes an admin's token."""
    import trio

    import_client()
    from broadcasterd import client

    async def ask() -> None:
        async with client.AsyncClient(url, token=token, proxy=proxy) as figures:
            if as_json:
                click.echo((await figures.stats_as_json()).encode())
            else:
                await _print_snapshot(figures, url)

    try:
        trio.run(ask)
    except client.RequestFailed as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.option("--filter", "glob", metavar="GLOB", help="Only those whose names this glob covers.")
@click.option(
    "--sort",
    type=click.Choice(["name", *ORDERS]),
    default="name",
    show_default=True,
    help="By name, or the largest first.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Print no more than so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@daemon_options
def sessions(
    *,
    glob: str | None,
    sort: str,
    limit: int | None,
    as_json: bool,
    url: str,
    token: str | None,
    proxy: str | None,
) -> None:
    """Print the open sessions. It takes an admin's token.

    A GLOB is a session's name, in which * stands for any run of characters.
    """
    import msgspec
    import trio

    import_client()
    from broadcasterd import client
    from broadcasterd.access.grants import matches

    async def ask() -> list[SessionFigures]:
        async with client.AsyncClient(url, token=token, proxy=proxy) as figures:
            return [each async for each in figures.sessions() if matches(glob or "*", each.session)]

    try:
        found = trio.run(ask)
    except client.RequestFailed as error:
        raise click.ClickException(str(error)) from error
    if sort in ORDERS:
        found.sort(key=lambda each: getattr(each, ORDERS[sort]), reverse=True)
    found = found[:limit]
    if as_json:
        click.echo(b"\n".join(map(msgspec.json.encode, found)), nl=bool(found))
        return
    from broadcasterd.cli.view import sessions_table

    _console(WIDEST).print(sessions_table(found))


@click.command()
@click.option(
    "--interval",
    metavar="DURATION",
    default="1s",
    show_default=True,
    callback=seconds,
    help="How often to ask: seconds, or 500ms and the like.",
)
@daemon_options
def top(*, interval: float, url: str, token: str | None, proxy: str | None) -> int:
    """Show the figures as they go on, until q is pressed. It takes an admin's token.

    While the daemon does not answer it says so, and goes on as soon as it does. Where standard
    output is no terminal, the figures of this moment are printed.
    """
    import trio

    import_client()
    from broadcasterd import client

    if interval < MIN_INTERVAL_S:
        raise click.BadParameter(f"expected at least {MIN_INTERVAL_S:g} s", param_hint="--interval")

    async def run() -> int:
        async with client.AsyncClient(url, token=token, proxy=proxy) as figures:
            console = _console(WIDE)
            if console.is_dumb_terminal or not sys.stdout.isatty():
                await _print_snapshot(figures, url)
                return 0
            from broadcasterd.cli.top import Top

            return await Top(figures, url, console, interval=interval).run()

    try:
        return trio.run(run)
    except client.RequestFailed as error:
        raise click.ClickException(str(error)) from error


async def _print_snapshot(figures: AsyncClient, url: str) -> None:
    import time

    from broadcasterd.cli.view import View, busiest

    view = View(
        url,
        stats=await figures.stats(),
        health=await figures.health(),
        asked_at=time.time(),
        sessions=busiest([each async for each in figures.sessions()]),
    )
    _console(WIDE).print(view)


def _console(columns: int) -> Console:
    """Return one that takes texts as they are: names may look like markup, or like emoji.

    Where it is a file or a pipe, it has so many columns.
    """
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = columns
    return console
