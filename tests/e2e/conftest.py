"""Fixtures for tests with real clients: each of the clients, and a stream that can be cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broadcasterd.page.assets import CLIENT
from tests.e2e import drivers
from tests.e2e.browser import Pages, serve_pages
from tests.e2e.devtools import Browser, Tab, open_browser
from tests.e2e.stream import Stream
from tests.support.daemon import StartDaemon
from tests.support.proxy import CuttingProxy
from tests.support.tools import require

CLIENTS: dict[str, drivers.Follow] = {
    "broadcasterd.client": drivers.own,
    "broadcasterd.client-trio": drivers.own_async("trio"),
    "broadcasterd.client-asyncio": drivers.own_async("asyncio"),
    "curl": drivers.curl,
    "httpx-sse": drivers.httpx_sse,
    "sseclient-py": drivers.sseclient_py,
    "client.js": drivers.script("client-js.mjs", str(CLIENT)),
    "npm-eventsource": drivers.node("eventsource"),
    "npm-launchdarkly-eventsource": drivers.node("launchdarkly-eventsource"),
    "npm-fetch-event-source": drivers.node("@microsoft/fetch-event-source"),
}
IN_A_BROWSER = {
    "chromium-client.js-fetch": None,
    "chromium-client.js-EventSource": None,
    "chromium-EventSource": None,
    "chromium-event-source-polyfill": "event-source-polyfill",
    "chromium-fetch-event-source": "@microsoft/fetch-event-source",
}
"""By name, the npm package that the client is from."""

RETRY_MS = 50
"""Clients come back soon, and so tests with many cuts are short."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Have one browser: to start it takes longer than most that is done with it."""
    with open_browser(require("chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Tab]:
    """Have one tab: each of the pages that come there is of an origin of its own."""
    with browser.tab() as tab:
        yield tab


@pytest.fixture
def pages() -> Iterator[Pages]:
    """Serve the pages that run clients in a browser."""
    with serve_pages() as pages:
        yield pages


@pytest.fixture(
    params=[*CLIENTS, *(pytest.param(name, marks=pytest.mark.slow) for name in IN_A_BROWSER)]
)
def follow(request: pytest.FixtureRequest, pages: Pages) -> drivers.Follow:
    """Return each of the clients in turn."""
    name = request.param
    if name in CLIENTS:
        return CLIENTS[name]
    client = name.removeprefix("chromium-")
    tab: Tab = request.getfixturevalue("tab")
    return drivers.chromium(client, pages, tab, package=IN_A_BROWSER[name])


@pytest.fixture
def stream(start_daemon: StartDaemon, pages: Pages) -> Iterator[Stream]:
    """Start a daemon that allows the pages' origin, and a proxy before it."""
    daemon = start_daemon(
        server={"cors_origins": [pages.origin]},
        sessions={"max_history_events": 2000, "max_lag_events": 2000, "retry_ms": RETRY_MS},
    )
    with CuttingProxy(daemon.port) as proxy:
        yield Stream(daemon, proxy)
