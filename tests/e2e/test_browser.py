"""The task of a browser alone: it keeps pages of other origins apart."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.e2e.browser import Pages
from tests.e2e.devtools import Tab
from tests.e2e.drivers import chromium
from tests.e2e.stream import Stream, text
from tests.support.daemon import StartDaemon
from tests.support.proxy import CuttingProxy

pytestmark = pytest.mark.slow


def test_a_page_of_an_origin_that_is_not_listed_sees_nothing(
    pages: Pages, tab: Tab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(server={"cors_origins": ["https://example.org"]})

    with (
        CuttingProxy(daemon.port) as proxy,
        chromium("EventSource", pages, tab)(proxy.session("news")) as events,
    ):
        Stream(daemon, proxy).publish(range(3))
        seen = list(events)  # until EventSource gave up
        asked = proxy.cursors()

    assert seen == []
    assert asked == [""]


def test_a_page_can_long_poll_where_a_stream_cannot_pass(
    stream: Stream, pages: Pages, tab: Tab
) -> None:
    stream.publish(range(3))

    with chromium("long poll", pages, tab)(stream.url) as events:
        seen = list(islice(events, 3))
        waiting = stream.proxy.wait_for_requests(2, within=10)
        stream.publish(range(3, 5))
        seen += islice(events, 2)

    assert waiting
    assert [event.data for event in seen] == [text(number) for number in range(5)]
    assert seen == stream.retained(5)
