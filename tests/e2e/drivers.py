"""The clients, each as a function that follows a stream and yields what its user would get.

Some come back by themselves when a connection breaks, and these are left to it. For the others
the loop that their users write is here: ask again, with the last id in ``Last-Event-ID``.
"""

from __future__ import annotations

import json
import queue
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import lru_cache
from http import HTTPStatus
from importlib.metadata import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import httpx
import requests
from anyio.from_thread import start_blocking_portal
from httpx_sse import connect_sse
from sseclient import SSEClient

from broadcasterd.client import AsyncClient, Client, Received
from tests.e2e.browser import Pages
from tests.e2e.devtools import Tab
from tests.support.lines import Lines
from tests.support.sse import Event, parse
from tests.support.tools import require

SCRIPTS = Path(__file__).parent / "clients"

PATIENCE_S = 60.0
"""How long the next event may take; a browser needs a few seconds to be there at all."""

Follow = Callable[[str], AbstractContextManager[Iterator[Event]]]
"""A client: follows the stream of a URL, until the server says that it is over."""


Report = dict[str, object]


class _OverError(Exception):
    """204: not worth coming back."""


def curl(url: str) -> AbstractContextManager[Iterator[Event]]:
    """``curl -N``, and a reader that takes the format at its word."""
    program = require("curl")

    def connect(last_event_id: str) -> Iterator[Event]:
        command = [program, "--no-buffer", "--silent", "--noproxy", "*", "--max-time", "30"]
        header = ["--header", f"Last-Event-ID: {last_event_id}"] if last_event_id else []
        status = ["--write-out", "%{stderr}%{http_code}"]
        with subprocess.Popen(
            [*command, *header, *status, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                # A cut may go through a character; of what it leaves, no event is made.
                text = (line.decode(errors="replace") for line in process.stdout)
                lines = (line.removesuffix("\n") for line in text)
                yield from parse(lines, last_event_id=last_event_id)
                _check(int(process.stderr.read()))
            finally:
                process.kill()

    return closing(_come_back(connect))


def httpx_sse(url: str) -> AbstractContextManager[Iterator[Event]]:
    """PyPI ``httpx-sse``."""

    def connect(last_event_id: str) -> Iterator[Event]:
        with (
            httpx.Client(trust_env=False, timeout=PATIENCE_S) as http,
            connect_sse(http, "GET", url, headers=_resume(last_event_id)) as source,
        ):
            _check(source.response.status_code)
            for sse in source.iter_sse():
                if sse.data:  # it makes an event of an id alone; by the standard that is none
                    yield Event(sse.id, sse.data, sse.event)

    return closing(_come_back(connect))


def sseclient_py(url: str) -> AbstractContextManager[Iterator[Event]]:
    """PyPI ``sseclient-py``, on top of httpx."""

    def connect(last_event_id: str) -> Iterator[Event]:
        headers = _resume(last_event_id)
        with (
            httpx.Client(trust_env=False, timeout=PATIENCE_S) as http,
            http.stream("GET", url, headers=headers) as response,
        ):
            _check(response.status_code)
            for event in SSEClient(response.iter_bytes()).events():
                last_event_id = event.id or last_event_id
                yield Event(last_event_id, event.data, event.event)

    return closing(_come_back(connect))


def requests_lines(url: str) -> AbstractContextManager[Iterator[Event]]:
    """PyPI ``requests``, and its lines as text: it decodes them as the response says."""

    def connect(last_event_id: str) -> Iterator[Event]:
        with requests.Session() as http:
            http.trust_env = False
            headers = _resume(last_event_id)
            with http.get(url, headers=headers, stream=True, timeout=PATIENCE_S) as response:
                _check(response.status_code)
                lines = response.iter_lines(decode_unicode=True)
                yield from parse(map(str, lines), last_event_id=last_event_id)

    return closing(_come_back(connect))


def sseclient(url: str) -> AbstractContextManager[Iterator[Event]]:
    """PyPI ``sseclient``, on top of requests: it comes back by itself, until it is let go of."""
    client = _sseclient().SSEClient

    def follow() -> Generator[Event, None, None]:
        with requests.Session() as http, ExitStack() as responses:

            def close_in_the_end(response: requests.Response, **_: object) -> None:
                responses.callback(response.close)  # it closes none itself

            http.trust_env = False
            http.hooks["response"].append(close_in_the_end)
            stream = client(url, session=http, timeout=PATIENCE_S)
            for event in stream:
                if event.data:  # it makes an event of a blank line
                    yield Event(stream.last_id or "", event.data, event.event)

    return closing(follow())


@lru_cache(maxsize=1)
def _sseclient() -> ModuleType:
    """Import it by its path: by its name, sseclient-py's package is found instead."""
    [path] = [file for file in files("sseclient") or () if file.name == "sseclient.py"]
    spec = spec_from_file_location("sseclient_on_requests", path.locate())
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def own(url: str) -> Iterator[Iterator[Event]]:
    """``broadcasterd.client``, in this thread."""
    base, session = _parts(url)
    with Client(base) as daemon, daemon.subscribe(session) as events:
        yield (Event(event.id, event.data, event.event) for event in events)


def own_async(backend: str) -> Follow:
    """Return ``broadcasterd.client`` in an event loop of a thread of its own."""

    @contextmanager
    def listen(url: str) -> Iterator[Iterator[Event]]:
        base, session = _parts(url)
        with (
            start_blocking_portal(backend) as loop,
            loop.wrap_async_context_manager(AsyncClient(base)) as daemon,
            loop.wrap_async_context_manager(daemon.subscribe(session)) as events,
        ):

            async def next_event() -> Received | None:
                return await anext(events, None)

            def follow() -> Iterator[Event]:
                while (event := loop.call(next_event)) is not None:
                    yield Event(event.id, event.data, event.event)

            yield follow()

    return listen


def _parts(url: str) -> tuple[str, str]:
    base, _, session = url.removesuffix("/events").partition("/v1/sessions/")
    return base, session


def node(package: str) -> Follow:
    """Return a client from npm, run by the script in ``clients/`` that has its name."""
    follow = script(f"{package.rpartition('/')[2]}.mjs")

    def require_and_follow(url: str) -> AbstractContextManager[Iterator[Event]]:
        require(f"npm:{package}")
        return follow(url)

    return require_and_follow


def script(name: str, *arguments: str) -> Follow:
    """Return the client that a script in ``clients/`` runs in Node."""

    @contextmanager
    def follow(url: str) -> Iterator[Iterator[Event]]:
        process = subprocess.Popen(
            [require("node"), SCRIPTS / name, url, *arguments],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert process.stdout is not None
        lines = Lines(process.stdout)

        def report() -> Report:
            line = lines.next(within=PATIENCE_S)
            assert line is not None, f"{name} ended"
            seen: Report = json.loads(line)
            return seen

        try:
            yield _until_closed(report)
        finally:
            process.kill()
            process.wait()
            lines.close()

    return follow


def chromium(
    client: str, pages: Pages, tab: Tab, *, package: str | None = None, token: str = ""
) -> Follow:
    """Return a client that runs in a page of Chromium, if need be from an npm package.

    ``pages/client.mjs`` has them by their names.
    """

    @contextmanager
    def follow(url: str) -> Iterator[Iterator[Event]]:
        if package is not None:
            require(f"npm:{package}")
        page = pages.url(client=client, stream=url, token=token)

        def report() -> Report:
            try:
                return pages.reports.get(timeout=PATIENCE_S)
            except queue.Empty:
                shown = tab.run("document.URL")
                raise TimeoutError(f"no report from {shown}; {tab.faults}") from None

        tab.faults.clear()
        tab.go(page)
        try:
            yield _until_closed(report)
        finally:
            tab.go("about:blank")

    return follow


def _come_back(connect: Callable[[str], Iterator[Event]]) -> Generator[Event, None, None]:
    last_event_id = ""
    while True:
        try:
            for event in connect(last_event_id):
                last_event_id = event.id
                yield event
        except (httpx.ReadError, httpx.RemoteProtocolError, requests.RequestException):
            continue
        except _OverError:
            return


def _check(status: int) -> None:
    if status == HTTPStatus.NO_CONTENT:
        raise _OverError
    assert status == HTTPStatus.OK, f"status {status}"


def _resume(last_event_id: str) -> dict[str, str]:
    return {"Last-Event-ID": last_event_id} if last_event_id else {}


@contextmanager
def express(url: str) -> Iterator[int]:
    """Run Express with ``compression`` and ``http-proxy-middleware`` before a URL.

    Gives the port that it listens at, on loopback.
    """
    for package in ("express", "compression", "http-proxy-middleware"):
        require(f"npm:{package}")
    script = SCRIPTS / "express-proxy.mjs"
    process = subprocess.Popen(
        [require("node"), script, url], stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    lines = Lines(process.stdout)
    try:
        ready = lines.next(within=PATIENCE_S)
        assert ready is not None, f"{script.name} ended"
        yield int(json.loads(ready)["port"])
    finally:
        process.kill()
        process.wait()
        lines.close()


def _until_closed(report: Callable[[], Report]) -> Iterator[Event]:
    while not (seen := report()).get("closed"):
        assert "error" not in seen, seen["error"]
        yield Event(str(seen["id"]), str(seen["data"]), str(seen["type"]))
