"""Streams as clients decode them and proxies carry them: at once, through a cut and a restart.

The clients know of a stream only what its header fields say. The proxy compresses what it may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice

import pytest

from broadcasterd.page.assets import CLIENT
from tests.e2e import drivers
from tests.e2e.conftest import RETRY_MS
from tests.e2e.stream import NAME, Stream
from tests.support.daemon import StartDaemon
from tests.support.proxy import Cut, CuttingProxy
from tests.support.sse import Event

# The first three have bytes that Latin-1 takes for a line break (0x85) or for other controls.
TEXTS = ["Ångström", '{"text": "and so on…"}', "日本語 🜅", "plain"]

CLIENTS = {
    "broadcasterd.client": drivers.own,
    "broadcasterd.client-trio": drivers.own_async("trio"),
    "client.js": drivers.script("client-js.mjs", str(CLIENT)),
    "requests": drivers.requests_lines,
    "sseclient": drivers.sseclient,
    "npm-eventsource": drivers.node("eventsource"),
}


Carried = Callable[[str], AbstractContextManager[int]]
"""A proxy before a daemon's URL; gives the port that it listens at."""


@contextmanager
def directly(url: str) -> Iterator[int]:
    yield int(url.rpartition(":")[2])


PROXIES: dict[str, Carried] = {"directly": directly, "through-express": drivers.express}


@pytest.mark.slow
@pytest.mark.parametrize("carried", PROXIES.values(), ids=PROXIES)
@pytest.mark.parametrize("follow", CLIENTS.values(), ids=CLIENTS)
def test_a_stream_is_decoded_as_it_was_written_and_carried_at_once(
    follow: drivers.Follow, carried: Carried, stream: Stream, start_daemon: StartDaemon
) -> None:
    def take(count: int) -> list[Event]:
        return list(islice(events, count))

    stream.publish_texts(TEXTS)
    with (
        carried(stream.proxy.url) as port,
        CuttingProxy(port) as network,
        follow(network.session(NAME)) as events,
    ):
        replayed = take(len(TEXTS))
        stream.publish_texts(TEXTS)
        live = take(len(TEXTS))
        network.cut(Cut.FIN)
        stream.publish_texts(TEXTS)
        after_a_cut = take(len(TEXTS))

        restarted = Stream(start_daemon(sessions={"retry_ms": RETRY_MS}), stream.proxy)
        stream.proxy.lead_to(restarted.daemon.port)
        stream.daemon.stop_cleanly()
        end = next(events)
        restarted.publish_texts(TEXTS)
        gap, *after_a_restart = take(1 + len(TEXTS))
        cursors = network.cursors()

    for seen in (replayed, live, after_a_cut, after_a_restart):
        assert [event.data for event in seen] == TEXTS
    assert [end.type, gap.type] == ["broadcaster.end", "broadcaster.gap"]
    assert network.cuts == 1
    assert cursors == ["", live[-1].id, after_a_cut[-1].id]
