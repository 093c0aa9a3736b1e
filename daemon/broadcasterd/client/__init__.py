"""The client of a daemon, for programs: `Client` in a thread, `AsyncClient` in Trio or asyncio.

Both are thin: what they do is in steps that know neither. ``publishing.py`` publishes,
``following.py`` listens, ``figures.py`` looks, ``exchange.py`` carries that out, and
``connection.py`` is what they share. ``lines.py`` is for pipes. docs/client.md shows how to use it.

It is independent of the daemon's own code: it knows the contract and nothing else.
It never prints and never exits; the command line does both.
"""

from broadcasterd.client.async_client import AsyncClient
from broadcasterd.client.connection import RequestFailed, Unavailable, events_url
from broadcasterd.client.exchange import AsyncToken, Token
from broadcasterd.client.figures import Health, SessionFigures, Stats
from broadcasterd.client.following import OWN_PREFIX, End, Gap, Received
from broadcasterd.client.lines import Source
from broadcasterd.client.publishing import Event, PublishFailed, Receipt
from broadcasterd.client.sync_client import Client, Publisher

__all__ = [
    "OWN_PREFIX",
    "AsyncClient",
    "AsyncToken",
    "Client",
    "End",
    "Event",
    "Gap",
    "Health",
    "PublishFailed",
    "Publisher",
    "Receipt",
    "Received",
    "RequestFailed",
    "SessionFigures",
    "Source",
    "Stats",
    "Token",
    "Unavailable",
    "events_url",
]
