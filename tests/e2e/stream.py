"""A stream as a test sees it: what is published on one side, and asked for on the other."""

from __future__ import annotations

import http.client
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import httpx

from tests.support.daemon import Daemon
from tests.support.proxy import CuttingProxy
from tests.support.sse import Event, parse

NAME = "news"

TEXTS = (
    "plain #",
    "two languages: 日本語 and עברית, 🜁 #",
    "lines\nof which\n\none is empty #",
    " a space before #, and after ",
    "id: # is only data",
    '{"json": [#, null]}',
    "a break at the end #\n",
    "no breaks here: \u2028 \u0085 \v \f #",
    f"long {'#' * 100}",
)
"""What data can be like; each ``#`` becomes the event's number."""


def text(number: int) -> str:
    """Return the data of the event with this number."""
    return TEXTS[number % len(TEXTS)].replace("#", str(number))


@dataclass(frozen=True, slots=True)
class Stream:
    """One session: published to directly, and followed through a proxy that can cut."""

    daemon: Daemon
    proxy: CuttingProxy

    @property
    def url(self) -> str:
        """Where clients follow it: through the proxy."""
        return self.proxy.session(NAME)

    def publish(self, numbers: Iterable[int]) -> None:
        """Publish the events with these numbers, in one request."""
        self.publish_texts([text(number) for number in numbers])

    def publish_texts(self, texts: list[str]) -> None:
        """Publish an event for each of these texts, in one request."""
        events = [{"data": data} for data in texts]
        answer = httpx.post(self.daemon.session(NAME), json=events, trust_env=False)

        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == len(events)

    def delete(self) -> None:
        """End the session."""
        url = f"{self.daemon.url}/v1/sessions/{NAME}"
        httpx.delete(url, trust_env=False).raise_for_status()

    def retained(self, count: int) -> list[Event]:
        """Return the first ``count`` events that the daemon retains, read past the proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=10)
        with closing(connection):
            connection.request("GET", f"/v1/sessions/{NAME}/events")
            lines = (line.decode().removesuffix("\n") for line in connection.getresponse())
            return list(islice(parse(lines), count))
