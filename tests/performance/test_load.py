"""The commands of the load generator, against a real daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.performance.posts import CONNECTIONS, request, warm_up
from tests.performance.processes import Broken, Load
from tests.support.daemon import Daemon

SIZE = 200
BODY = '{"data": "x"}'


@pytest.fixture
def load(daemon: Daemon) -> Iterator[Load]:
    """A load generator for a daemon."""
    with Load(daemon.port) as load:
        yield load


def test_sessions_take_turns(load: Load) -> None:
    load.do("open", session="of", count=20, spread=10)
    seen = load.do("publish", session="of", events=30, spread=10, size=SIZE, rate=0)

    assert seen["errors"] == []
    assert seen["deliveries"] == 30 * 2


def test_all_come_back_after_the_last_event(load: Load) -> None:
    """And are sent nothing anew, but all that comes next."""
    load.do("open", session="storm", count=20)
    load.do("publish", session="storm", events=3, size=SIZE, rate=0)
    back = load.do("reconnect", window=8)
    seen = load.do("publish", session="storm", events=2, size=SIZE, rate=0)

    assert back["opened"] == 20
    assert seen["errors"] == []
    assert seen["deliveries"] == 2 * 20


def test_latencies_of_a_span(load: Load) -> None:
    load.do("open", session="s", count=2)
    load.do("publish", session="s", events=3, size=SIZE, rate=0)

    assert load.do("latency")["max_ms"] > 0
    assert load.do("latency", since_s=0, until_s=1e-9)["max_ms"] == 0


@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])
def test_what_is_posted_is_what_a_drain_counts(load: Load, daemon: Daemon, fresh: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    load.do("open", session="s", count=2)
    load.begin("drain")
    requests = [request("s", BODY, "application/json", fresh=fresh)]
    with Load(daemon.port) as poster:
        posted = poster.do(
            "post", requests=requests, connections=CONNECTIONS, seconds=0.2, fresh=fresh
        )
    load.write_line(str(2 * posted["requests"]))
    drained = load.finish("drain")

    assert posted["failures"] == 0
    assert posted["requests"] > 0
    assert drained["events"] == 2 * posted["requests"]


def test_refusals_are_failures(daemon: Daemon) -> None:
    posted = warm_up(daemon, [request("s", "no JSON", "application/json")])

    assert posted.requests == 0
    assert posted.failures > 0


def test_a_replay_is_an_error(load: Load) -> None:
    """A figure of more than was asked for would be wrong."""
    load.do("publish", session="s", events=1, size=SIZE, rate=0)
    try:
        load.do("open", session="s", count=1)
        seen = load.do("publish", session="s", events=1, size=SIZE, rate=0)
    except Broken as error:  # the replay came with the first bytes, and not after them
        seen = {"errors": [str(error)]}

    assert seen["errors"]


def test_a_command_has_an_end(daemon: Daemon) -> None:
    with Load(daemon.port, answer_s=0.1) as load:
        load.begin("drain")

        with pytest.raises(Broken, match="did not answer within"):
            load.finish("drain")
