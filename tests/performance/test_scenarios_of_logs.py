"""What costs the same whatever is retained already, and what only grows with what is asked for.

Each figure is a ratio of CPU time, or a count; build/performance.json has the latest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
import trio

from broadcasterd.api.formats import NdjsonEvents, RelayedEvents
from broadcasterd.broadcast.hub import Hub
from broadcasterd.core.decoder import StreamDecoder
from broadcasterd.core.event import Event
from broadcasterd.core.keys import KeyIndex
from broadcasterd.core.position import ById
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.core.wire import encode_block
from broadcasterd.handover.transfer import hand_over, restore
from tests.performance.costs import function_calls
from tests.support.broadcast import ALL, Arrivals, draft, start_hub
from tests.support.measured import Measured, cpu_ratio
from tests.support.shelf import Shelf

pytestmark = pytest.mark.slow

FEW, MANY = 100, 10_000
"""Events that a log retains: a hundred times as many."""

BLOCK = encode_block(Event("x" * 100))
TIMES = 200


def full_log(events: int) -> ReplayLog:
    """Return a log that retains so many events, each with a key, and may retain no more."""
    log = ReplayLog(incarnation="i", max_events=events, max_bytes=ALL, max_age=1e9)
    for number in range(events):
        log.append(BLOCK, now=float(number), key=f"key-{number}")
    return log


@pytest.fixture(scope="module")
def few() -> ReplayLog:
    """Return a log of a few events."""
    return full_log(FEW)


@pytest.fixture(scope="module")
def many() -> ReplayLog:
    """Return a log of many."""
    return full_log(MANY)


def over_and_over(step: Callable[[ReplayLog], object], log: ReplayLog) -> Callable[[], None]:
    """Return what takes a step with a log, so often that it can be measured."""

    def work() -> None:
        for _ in range(TIMES):
            step(log)

    return work


def compared(step: Callable[[ReplayLog], object], few: ReplayLog, many: ReplayLog) -> float:
    """Return how many times as much a step costs where a hundred times as much is retained."""
    return cpu_ratio(over_and_over(step, many), over_and_over(step, few))


def test_a_publish_that_evicts_costs_the_same_in_a_long_history(
    few: ReplayLog, many: ReplayLog, measured: Measured
) -> None:
    step = lambda log: log.append(BLOCK, now=float(log.last), key=f"key-{log.last}")  # noqa: E731
    measured(compared(step, few, many), "times", at_most=4)


def test_a_gap_is_found_at_the_same_cost_in_a_long_history(
    few: ReplayLog, many: ReplayLog, measured: Measured
) -> None:
    measured(compared(lambda log: log.resolve(ById("other-1")), few, many), "times", at_most=6)


def test_a_reconnection_finds_its_place_at_the_same_cost_in_a_long_history(
    few: ReplayLog, many: ReplayLog, measured: Measured
) -> None:
    def step(log: ReplayLog) -> None:
        middle = log.resolve(ById(log.id_of(log.last - len(log) // 2)))
        assert log.run_after(middle.cursor, max_bytes=1000)

    measured(compared(step, few, many), "times", at_most=6)


def test_a_duplicate_is_found_at_the_same_cost_among_many_keys(
    few: ReplayLog, many: ReplayLog, measured: Measured
) -> None:
    step = lambda log: log.duplicate_of(f"key-{log.last - 20}")  # noqa: E731
    measured(compared(step, few, many), "times", at_most=8)


def test_a_look_for_expired_events_costs_the_same_in_a_long_history(
    few: ReplayLog, many: ReplayLog, measured: Measured
) -> None:
    measured(compared(lambda log: log.expire(0.0), few, many), "times", at_most=3)


def test_a_key_takes_few_bytes_of_the_index(measured: Measured) -> None:
    index = KeyIndex()
    for number in range(MANY):
        index.put(f"key-{number}", number)

    measured(index.size_bytes / MANY, "bytes", at_most=32)


def test_a_replay_of_a_full_log_is_far_cheaper_than_its_events_one_by_one(
    many: ReplayLog, measured: Measured
) -> None:
    def in_runs() -> None:
        cursor = many.floor
        while run := many.run_after(cursor, max_bytes=65536):
            cursor = run.end

    def one_by_one() -> None:
        cursor = many.floor
        while entries := many.since(cursor, max_bytes=65536):
            cursor = entries[-1].seq

    measured(cpu_ratio(in_runs, one_by_one), "times", at_most=0.2)


# --- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ndjson", "sse"])
def test_a_body_costs_the_same_an_event_however_long_it_is(kind: str, measured: Measured) -> None:
    data = b"x" * 400
    line = b'{"data":"%s"}\n' % data if kind == "ndjson" else b"data: %s\n\n" % data

    def read(events: int) -> None:
        reader = NdjsonEvents(ALL) if kind == "ndjson" else RelayedEvents(ALL)
        assert events == sum(1 for _ in reader.feed(line * events))

    def briefly() -> None:
        for _ in range(10):
            read(100)

    measured(cpu_ratio(lambda: read(1000), briefly), "times", at_most=2.5)


@pytest.mark.parametrize("kind", ["ndjson", "sse"])
def test_a_long_line_in_small_pieces_costs_no_more_than_its_length(
    kind: str, measured: Measured
) -> None:
    begin = b'{"data":"' if kind == "ndjson" else b"data: "
    end = b'"}\n' if kind == "ndjson" else b"\n\n"

    def read(pieces: int) -> None:
        reader = NdjsonEvents(ALL) if kind == "ndjson" else RelayedEvents(ALL)
        assert not [*reader.feed(begin)]
        for _ in range(pieces):
            assert not [*reader.feed(b"x" * 256)]
        [event] = reader.feed(end)
        assert 256 * pieces == len(event.data)

    def briefly() -> None:
        for _ in range(8):
            read(250)

    measured(cpu_ratio(lambda: read(2000), briefly), "times", at_most=3)


def test_a_stream_is_decoded_at_a_cost_that_does_not_depend_on_how_it_is_cut(
    measured: Measured,
) -> None:
    text = b"event: e\ndata: some text\n\n" * 2000

    def read(size: int) -> None:
        decoder = StreamDecoder(max_event_chars=1000)
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        assert 2000 == sum(1 for piece in pieces for _ in decoder.feed(piece))

    measured(cpu_ratio(lambda: read(64), lambda: read(65536)), "times", at_most=4)


# --- handover --------------------------------------------------------------------------------


async def test_a_log_is_handed_over_and_taken_up_at_few_calls_an_event(measured: Measured) -> None:
    few, many = 200, 1200
    totals = [await _calls_of_handover(events) for events in (few, many)]

    measured((totals[1] - totals[0]) / (many - few), "calls", at_most=85)


async def _calls_of_handover(events: int) -> int:
    shelf = Shelf()
    async with trio.open_nursery() as nursery:
        hub = await start_hub(nursery, max_history_events=events)
        session = hub.open("s")
        await session.publish([draft("x", key=secrets.token_hex(8)) for _ in range(events)])
        successor: Hub = await start_hub(nursery, max_history_events=events)
        with function_calls() as count:
            await hand_over(hub, shelf)
            await restore(successor, shelf, Arrivals())
        assert events == len(successor.find("s").log)
        nursery.cancel_scope.cancel()
    return count.total
