"""A client of the daemon's HTTP interface that takes every answer as it comes."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

TIMEOUT_S = 30.0
"""How long an answer may take, or the next line of a stream: heartbeats come more often."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. ``document`` is its body, where that is a JSON object."""

    status: int
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a stream. The daemon's own have no id."""

    id: str
    type: str
    data: str


class Client:
    """Makes requests, each on a connection of its own.

    Args:
        url: where the daemon is.
        token: sent with every request, unless told otherwise.

    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.token = token

    def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] = {}
    ) -> Answer:
        """Make a request, with a body of JSON where there is one."""
        with closing(self._connect()) as connection:
            content = None if body is None else json.dumps(body).encode()
            kind = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, content, self._authorization() | kind | dict(headers))
            response = connection.getresponse()
            text = response.read()
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        return Answer(response.status, document if isinstance(document, dict) else {})

    def listen(self, path: str, *, last_event_id: str | None = None) -> Stream:
        """Subscribe; leaving the context hangs up."""
        resume = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        connection = self._connect()
        connection.request("GET", path, headers=self._authorization() | resume)
        return Stream(connection, connection.getresponse())

    def _authorization(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def _connect(self) -> http.client.HTTPConnection:
        url = urlsplit(self.url)
        if url.scheme != "https":
            return http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_S)
        # The certificate is for a name, and this may be the address behind it.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 # nosec B323
        return http.client.HTTPSConnection(url.netloc, timeout=TIMEOUT_S, context=context)


class Stream:
    """An open stream."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        self._connection = connection
        self._response = response
        self.status = response.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()

    def wait_until_open(self) -> None:
        """Wait for the opening of the stream: events published from now on are live."""
        while not self._line().startswith(": stream "):
            pass

    def event(self) -> Event:
        """Wait for the next event.

        Raises:
            OSError: the stream ends, or is silent.

        """
        fields: dict[str, list[str]] = {}
        while (line := self._line()) or "data" not in fields:
            if line:
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))
            else:
                fields.clear()
        data = "\n".join(fields["data"])
        return Event(fields.get("id", [""])[-1], fields.get("event", ["message"])[-1], data)

    def _line(self) -> str:
        line = self._response.readline()
        if not line:
            raise ConnectionError("the stream ended")
        return line.decode().rstrip("\n")
