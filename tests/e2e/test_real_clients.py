"""The clients that people read event streams with, on connections that break.

A client sees every event once and in order, however often its connection is cut, and leaves an
ended session alone.
"""

from __future__ import annotations

import json
from itertools import islice

import httpx
import pytest

from tests.e2e.drivers import Follow
from tests.e2e.stream import Stream, text
from tests.support.proxy import Cut

QUIET_S = 0.5
"""Ten times the ``retry`` of these streams: who would come back is back by then.

Only event-source-polyfill never comes back before a second; that it gave up is its own word.
"""


@pytest.mark.slow
def test_every_event_arrives_once_and_in_order_through_cuts_and_an_ended_session_is_left_alone(
    follow: Follow, stream: Stream
) -> None:
    stream.publish(range(500))
    stream.proxy.cut_after(14_987, 22_501)

    with follow(stream.url) as events:
        seen = list(islice(events, 500))  # replayed
        stream.publish(range(500, 800))
        seen += islice(events, 300)  # live
        stream.proxy.cut(Cut.FIN)
        stream.publish(range(800, 1000))
        seen += islice(events, 200)  # published when its connection was gone

        expected = stream.retained(1000)
        ids = [event.id for event in expected]
        cursors = stream.proxy.cursors()
        stream.delete()
        end = next(events)
        rest = list(events)  # until the client says that it gave up
        in_the_end = stream.proxy.cursors()
        came_back = stream.proxy.wait_for_requests(len(in_the_end) + 1, within=QUIET_S)

    assert [event.data for event in expected] == [text(number) for number in range(1000)]
    assert len(set(ids)) == 1000
    assert seen == expected
    assert stream.proxy.cuts >= 3
    assert len(cursors) >= 4
    assert cursors == sorted(cursors, key=["", *ids].index)
    assert cursors[0] == ""
    assert cursors[-1] == ids[799]

    assert end.type == "broadcaster.end"
    assert json.loads(end.data) == {"reason": "session_closed", "reconnect": False}
    assert rest == []
    assert in_the_end in (cursors, [*cursors, ids[-1]])  # ours take the daemon at its word
    assert not came_back
    assert httpx.get(stream.daemon.session("news"), trust_env=False).status_code == 204


def test_an_event_that_is_cut_in_two_is_not_lost(follow: Follow, stream: Stream) -> None:
    """It is sent again: a client's cursor moves when it has all of an event, and not before."""
    texts = ["before", "x" * 10_000, "after"]
    stream.publish_texts(texts)
    stream.proxy.cut_after(5_000, how=Cut.FIN)

    with follow(stream.url) as events:
        seen = list(islice(events, 3))

    assert [event.data for event in seen] == texts
    assert stream.proxy.cuts == 1
