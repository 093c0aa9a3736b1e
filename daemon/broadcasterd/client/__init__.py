"""The HTTP client of `publish` and `tail`, for other programs, too: the contract in two classes.

``tail.py`` listens, ``publisher.py`` publishes, and ``connection.py`` is what they share.

It is synchronous, and independent of the daemon's own code: it knows the contract and nothing else.
It never prints and never exits; the command line does both.
"""

from broadcasterd.client.connection import RequestFailed, events_url
from broadcasterd.client.publisher import Publisher, PublishFailed, Receipt, Source
from broadcasterd.client.tail import OWN_PREFIX, Received, Tail

__all__ = [
    "OWN_PREFIX",
    "PublishFailed",
    "Publisher",
    "Receipt",
    "Received",
    "RequestFailed",
    "Source",
    "Tail",
    "events_url",
]
