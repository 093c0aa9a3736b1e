"""The HTTP client of the commands, for other programs, too: the contract in three classes.

``tail.py`` listens, ``publisher.py`` publishes, ``figures.py`` looks, and ``connection.py`` is what
they share. The first two are synchronous, and the third runs in Trio.

It is independent of the daemon's own code: it knows the contract and nothing else.
It never prints and never exits; the command line does both.
"""

from broadcasterd.client.connection import RequestFailed, Unavailable, events_url
from broadcasterd.client.figures import Figures, Health, SessionFigures, Stats
from broadcasterd.client.publisher import Publisher, PublishFailed, Receipt, Source
from broadcasterd.client.tail import OWN_PREFIX, Received, Tail

__all__ = [
    "OWN_PREFIX",
    "Figures",
    "Health",
    "PublishFailed",
    "Publisher",
    "Receipt",
    "Received",
    "RequestFailed",
    "SessionFigures",
    "Source",
    "Stats",
    "Tail",
    "Unavailable",
    "events_url",
]
