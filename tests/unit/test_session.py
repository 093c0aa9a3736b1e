"""A session: one order for all publishers, every event once for all subscribers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from broadcasterd.broadcast.batch import Batch
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.fresh import MAX_BATCH_BYTES
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.publication import Receipt
from broadcasterd.broadcast.session import (
    FINISH_TIMEOUT_S,
    INBOX_PUBLICATIONS,
    Session,
)
from broadcasterd.broadcast.slices import SLICE
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.position import ById, First, Last, Now, Since, Start
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Position
from broadcasterd.core.wire import HEARTBEAT, LAST_CHUNK, chunk, encode_end
from broadcasterd.errors import SessionEnded, TooLarge, Unavailable
from tests.support.broadcast import (
    FIRST,
    Recorder,
    ThrottledSocket,
    attach,
    data_of,
    draft,
    drafts,
    hub_of,
    in_force,
    make_hub,
    numbers,
    retained,
    start_hub,
    taken,
)


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub with the default settings."""
    return await start_hub(nursery)


@pytest.fixture
async def session(hub: Hub) -> Session:
    """Open a session of it."""
    return hub.open("s")


def idle_session(**limits: object) -> Session:
    """Return a session whose task does not run until the test runs it."""
    return make_hub(in_force(**limits)).new_session("s", "1234abcd", None)


# --- publishing ------------------------------------------------------------------------------


async def test_events_of_many_publishers_arrive_once_and_in_one_order(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery, max_history_events=10_000)
    session = hub.open("s")
    live = [attach(session) for _ in range(3)]
    ids: dict[str, str] = {}

    async def publish(publisher: int) -> None:
        waiting = [f"{publisher}-{number}" for number in range(50)]
        while waiting:
            size = random.randint(1, 5)  # noqa: S311
            batch, waiting = waiting[:size], waiting[size:]
            receipt = await session.publish(drafts(*batch))
            ids[batch[0]], ids[batch[-1]] = receipt.first_id or "", receipt.last_id or ""

    async with trio.open_nursery() as publishers:
        for publisher in range(20):
            publishers.start_soon(publish, publisher)
    seen = data_of(live[0])

    assert len(seen) == 20 * 50
    for publisher in range(20):
        own = [data for data in seen if data.startswith(f"{publisher}-")]
        assert own == [f"{publisher}-{number}" for number in range(50)]
    for subscriber in live:
        assert taken(subscriber) == taken(live[0])
    assert retained(session) == seen
    for data, event_id in ids.items():
        assert seen[numbers([event_id])[0] - 1] == data


async def test_a_publication_is_never_mixed_with_others(session: Session) -> None:
    async with trio.open_nursery() as publishers:
        for letter in "abcdefgh":
            # Larger than what one fan-out joins, so that others run in the middle of it.
            publishers.start_soon(session.publish, drafts(*[letter + "x" * MAX_BATCH_BYTES] * 3))
    letters = [data[0] for data in retained(session)]

    assert letters == [letter for letter in letters[::3] for _ in range(3)]


async def test_a_receipt_names_the_first_and_the_last_event(session: Session) -> None:
    first = await session.publish(drafts("a", "b", "c"))
    second = await session.publish(drafts("d"))
    id_of = session.log.id_of

    assert first == Receipt(3, 0, id_of(1), id_of(3))
    assert second == Receipt(1, 0, id_of(4), id_of(4))


async def test_a_publication_without_events_has_a_receipt_without_ids(session: Session) -> None:
    assert await session.publish([]) == Receipt(0, 0, None, None)


async def test_a_key_that_is_retained_makes_a_duplicate(session: Session) -> None:
    live = attach(session)
    await session.publish([draft("a", key="k")])
    again = await session.publish([draft("a", key="k")])
    mixed = await session.publish([draft("a", key="k"), draft("b"), draft("b", key="k")])
    id_of = session.log.id_of

    assert again == Receipt(0, 1, id_of(1), id_of(1))
    assert mixed == Receipt(1, 2, id_of(1), id_of(1))
    assert data_of(live) == ["a", "b"]


async def test_a_key_counts_within_its_own_publication(session: Session) -> None:
    receipt = await session.publish([draft("a", key="k"), draft("b", key="k")])

    assert receipt == Receipt(1, 1, session.log.id_of(1), session.log.id_of(1))
    assert retained(session) == ["a"]


async def test_a_key_that_expired_is_new_again(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    await session.publish([draft("a", key="k", ttl=1)])
    await trio.sleep(1)

    assert (await session.publish([draft("a", key="k")])).accepted == 1


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(draft("x" * 2000), id="an event too large"),
        pytest.param(draft("x" * 700, key="k" * 256), id="too large with its key"),
    ],
)
async def test_of_a_publication_with_an_event_that_does_not_fit_nothing_is_accepted(
    refused: EncodedEvent, nursery: trio.Nursery
) -> None:
    session = (await start_hub(nursery, max_history_bytes=1000)).open("s")
    live = attach(session)
    with pytest.raises(TooLarge):
        await session.publish([draft("before"), refused, draft("after")])
    await session.publish(drafts("next"))

    assert data_of(live) == ["next"] == retained(session)


async def test_more_events_than_are_retained_still_reach_who_listens(session: Session) -> None:
    live = attach(session)
    await session.publish(drafts(*map(str, range(2000))))

    assert data_of(live) == [str(number) for number in range(2000)]
    assert len(retained(session)) == 500


async def test_a_full_inbox_holds_the_publisher() -> None:
    session = idle_session()
    settled: list[int] = []

    async def publish(number: int) -> None:
        await session.publish(drafts(str(number)))
        settled.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(INBOX_PUBLICATIONS + 4):
            nursery.start_soon(publish, number)
        await trio.testing.wait_all_tasks_blocked()
        inbox = session._inbox.statistics()

        assert (inbox.current_buffer_used, inbox.tasks_waiting_send) == (INBOX_PUBLICATIONS, 4)
        assert settled == []

        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()

        assert sorted(settled) == list(range(INBOX_PUBLICATIONS + 4))
        nursery.cancel_scope.cancel()


async def test_a_publisher_that_gives_up_in_the_queue_leaves_nothing_behind() -> None:
    session = idle_session()
    async with trio.open_nursery() as nursery:
        for number in range(INBOX_PUBLICATIONS):
            nursery.start_soon(session.publish, drafts(str(number)))
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await session.publish(drafts("given up"))
        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()

        assert "given up" not in retained(session)
        nursery.cancel_scope.cancel()


# --- single events, which their publishers log and broadcast ----------------------------------


class Steps(trio.abc.Instrument):
    """Counts the steps of each task, by its name."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    @override
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name.rpartition(".")[2]] += 1


async def publish_together(session: Session, *publications: list[EncodedEvent]) -> None:
    """Have all of them published by as many tasks, in the same turn."""
    async with trio.open_nursery() as publishers:
        for events in publications:
            publishers.start_soon(session.publish, events)


async def test_a_single_event_needs_no_step_of_the_sessions_task(session: Session) -> None:
    live = Recorder(session)
    await trio.testing.wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(steps := Steps())
    await publish_together(session, *(drafts(str(number)) for number in range(10)))
    trio.lowlevel.remove_instrument(steps)

    assert steps.of["publish"] == 2 * 10  # once to log it, and once to be told
    assert steps.of["_contain"] == 0
    assert live.data == retained(session)
    assert len(live.data) == 10


async def test_several_events_are_the_tasks(session: Session) -> None:
    await trio.testing.wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(steps := Steps())
    await session.publish(drafts("a", "b"))
    trio.lowlevel.remove_instrument(steps)

    assert steps.of["_contain"] == 1


async def test_single_events_that_come_together_are_broadcast_together(session: Session) -> None:
    sizes: list[int] = []
    live = Recorder(session, on_delivery=lambda batch: sizes.append(batch.count))
    await trio.testing.wait_all_tasks_blocked()
    await publish_together(session, *(drafts(str(number)) for number in range(10)))

    assert sizes == [10]
    assert live.data == retained(session)


@pytest.mark.parametrize("size", [MAX_BATCH_BYTES // 3, 2 * MAX_BATCH_BYTES])
async def test_much_is_not_joined_by_publishers(session: Session, size: int) -> None:
    sizes: list[int] = []
    live = Recorder(session, on_delivery=lambda batch: sizes.append(batch.size))
    await trio.testing.wait_all_tasks_blocked()
    events = [str(number) * size for number in range(9)]
    await publish_together(session, *(drafts(event) for event in events))

    assert sorted(live.data) == events
    assert live.data == retained(session)
    assert max(sizes) < MAX_BATCH_BYTES + size + 100


async def test_with_many_subscribers_the_task_does_it_in_slices(session: Session) -> None:
    live = [Recorder(session) for _ in range(SLICE)]
    await trio.testing.wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(steps := Steps())
    await session.publish(drafts("a"))
    trio.lowlevel.remove_instrument(steps)

    assert steps.of["_contain"] > 0
    assert all(each.data == ["a"] for each in live)


@given(
    st.lists(
        st.lists(st.sampled_from([1, 300, MAX_BATCH_BYTES]), min_size=1, max_size=3),
        min_size=1,
        max_size=20,
    ),
    st.integers(0, 3),
)
def test_single_events_and_several_have_one_order(
    publications: list[list[int]], turns: int
) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            hub = await start_hub(nursery, max_history_events=1000)
            session = hub.open("s")
            live = attach(session)
            async with trio.open_nursery() as publishers:
                for number, sizes in enumerate(publications):
                    data = [f"{number}-{place}-" + "x" * size for place, size in enumerate(sizes)]
                    publishers.start_soon(session.publish, drafts(*data))
                    for _ in range(number % (turns + 1)):
                        await trio.lowlevel.checkpoint()
                late = attach(session)
            seen = data_of(live)

            assert seen == retained(session) == data_of(late)
            places = [tuple(map(int, data.split("-")[:2])) for data in seen]
            assert sorted(places) == [
                (number, place)
                for number, sizes in enumerate(publications)
                for place in range(len(sizes))
            ]
            for number, sizes in enumerate(publications):
                first = places.index((number, 0))
                assert places[first : first + len(sizes)] == [
                    (number, place) for place in range(len(sizes))
                ]
            nursery.cancel_scope.cancel()

    trio.run(main)


@pytest.mark.parametrize("_", range(10))  # which of two tasks is first, Trio leaves to chance
async def test_a_publisher_that_is_cancelled_after_its_event_was_logged_broadcasts_it(
    session: Session, _: int
) -> None:
    live = Recorder(session)
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as publishers:
        publishers.start_soon(session.publish, drafts("a"))
        while not session.log.last:
            await trio.lowlevel.checkpoint()
        publishers.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert live.data == ["a"]


@pytest.mark.parametrize("_", range(10))
async def test_an_event_that_was_logged_is_broadcast_though_the_session_ends(
    hub: Hub, session: Session, _: int
) -> None:
    live = attach(session)
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as publishers:
        publishers.start_soon(session.publish, drafts("a"))
        while not session.log.last:
            await trio.lowlevel.checkpoint()
        hub.end("s")
    await trio.testing.wait_all_tasks_blocked()

    assert data_of(live)[0] == "a"
    assert taken(live).endswith(chunk(encode_end(EndReason.SESSION_CLOSED)) + LAST_CHUNK)


@pytest.mark.parametrize("_", range(10))
async def test_what_comes_between_finds_the_events_that_publishers_logged(
    session: Session, _: int, autojump_clock: trio.testing.MockClock
) -> None:
    live = attach(session)
    await trio.sleep(session.limits.heartbeat_interval)
    async with trio.open_nursery() as publishers:
        publishers.start_soon(session.publish, drafts("a"))
        while not session.log.last:
            await trio.lowlevel.checkpoint()
        session.heartbeat_if_due(session.now())
        publishers.start_soon(session.publish, drafts("b"))
        publishers.start_soon(session.publish, drafts("c", "d"))
        late = attach(session)
    await trio.testing.wait_all_tasks_blocked()

    assert retained(session) == data_of(live) == data_of(late)
    assert len(data_of(live)) == 4


@pytest.mark.parametrize("failing", ["_log_for_task", "_broadcast_at_once"])
async def test_where_a_publisher_fails_at_it_the_session_fails(
    session: Session, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    live = Recorder(session)
    await trio.testing.wait_all_tasks_blocked()
    monkeypatch.setattr(Session, failing, fail)
    with pytest.raises(Unavailable):
        await session.publish(drafts("a"))
    await trio.testing.wait_all_tasks_blocked()

    assert live.closed
    assert session.counts.failed_sessions == 1


# --- replay, and live from there -------------------------------------------------------------


@dataclass
class Plan:
    """What happens while batches are on their way: at each delivery the next action."""

    actions: Iterator[str]
    session: Session
    came: list[tuple[SocketSubscriber, int]] = field(default_factory=list)
    gone: list[SocketSubscriber] = field(default_factory=list)

    def next_action(self, _batch: Batch | None = None) -> None:
        log = self.session.log
        match next(self.actions, ""):
            case "attach":
                self.attach(FIRST, after=log.floor)
            case "attach now":
                self.attach(Now(), after=log.last)
            case "attach last":
                self.attach(Last(2), after=max(log.last - 2, 0))
            case "attach by id":
                after = log.last // 2
                self.attach(ById(log.id_of(after)), after=after)
            case "attach late":  # it was admitted at the beginning, and its socket took a while
                subscriber = SocketSubscriber(
                    self.session,
                    ThrottledSocket(),
                    hub_of(self.session).poller,
                    stream_id=f"late-{len(self.came)}",
                    peer="",
                    position=Position(0),
                )
                self.session.attach(subscriber)
                self.came.append((subscriber, 0))
            case "attach slow":
                self.attach(FIRST, after=log.floor, window=7)
            case "detach" if self.came:
                subscriber, _ = self.came.pop()
                subscriber.close(EndReason.CLIENT_GONE)
            case "drain":
                for subscriber, _ in self.came:
                    sock = subscriber._socket
                    assert isinstance(sock, ThrottledSocket)
                    sock.allow()

    def attach(self, start: Start, *, after: int, window: int = 1 << 40) -> None:
        subscriber = attach(self.session, ThrottledSocket(window=window), start=start)
        self.came.append((subscriber, after))


ACTIONS = [
    "",
    "attach",
    "attach now",
    "attach last",
    "attach by id",
    "attach late",
    "attach slow",
    "detach",
    "drain",
]


@given(
    actions=st.lists(st.sampled_from(ACTIONS), max_size=40),
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=10),
    large=st.booleans(),
)
def test_who_comes_at_any_moment_gets_everything_after_its_start_once(
    actions: list[str], batches: list[int], *, large: bool
) -> None:
    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            session = (await start_hub(nursery)).open("s")
            plan = Plan(iter(actions), session)
            padding = "x" * (MAX_BATCH_BYTES // 3 if large else 1)
            for _ in range(3):
                Recorder(session, on_delivery=plan.next_action)
            async with trio.open_nursery() as publishers:
                for number, size in enumerate(batches):
                    batch = [f"{number}.{index} {padding}" for index in range(size)]
                    publishers.start_soon(session.publish, drafts(*batch))
                    plan.next_action()
            plan.actions = iter(["drain"])
            plan.next_action()
            await trio.testing.wait_all_tasks_blocked()
            everything = retained(session)

            assert sum(batches) == len(everything)
            for subscriber, after in plan.came:
                assert everything[after:] == data_of(subscriber)
            nursery.cancel_scope.cancel()

    trio.run(scenario)


async def test_who_comes_between_two_slices_of_a_fan_out_gets_everything_once(
    session: Session,
) -> None:
    came: list[SocketSubscriber] = []

    async def come_whenever_possible() -> None:
        while True:
            came.append(attach(session))
            await trio.lowlevel.checkpoint()

    crowd = [Recorder(session) for _ in range(2 * SLICE)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_whenever_possible)
        for number in range(10):
            await session.publish(drafts(f"{number}.0", f"{number}.1"))
        nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert len(came) > 20
    for subscriber in came:
        assert data_of(subscriber) == retained(session)
    for recorder in crowd:
        assert recorder.data == retained(session)


async def test_a_fan_out_lets_others_run(session: Session) -> None:
    during: list[int] = []

    async def look() -> None:
        while True:
            during.append(sum(bool(recorder.data) for recorder in crowd))
            await trio.lowlevel.checkpoint()

    crowd = [Recorder(session) for _ in range(3 * SLICE)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await session.publish(drafts("a"))
        while during[-1:] != [len(crowd)]:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    assert {SLICE, 2 * SLICE} & set(during)


async def test_a_time_to_start_from_is_understood_as_wall_clock_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    clock = Clock(wall=lambda: 1_700_000_000 + trio.current_time())
    hub = await start_hub(nursery, make_hub(clock=clock))
    session = hub.open("s")
    began = hub.clock.unix_now()
    for number in range(5):
        await session.publish(drafts(str(number)))
        await trio.sleep(10)

    assert session.resolve(Since(began + 20)) == Position(2)
    assert session.resolve(Since(began + 20.5)) == Position(3)
    assert session.resolve(Since(began - 1000)) == Position(0)
    assert session.resolve(Since(began + 1000)) == Position(5)


async def test_what_has_expired_is_not_replayed_even_before_it_is_swept(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    session = (await start_hub(nursery, event_ttl=10)).open("s")
    await session.publish(drafts("old"))
    await trio.sleep(6)
    await session.publish(drafts("young"))
    await trio.sleep(6)

    assert data_of(attach(session, start=First())) == ["young"]


# --- subscribers that fail -------------------------------------------------------------------


async def test_a_subscriber_that_fails_is_dropped_alone(hub: Hub, session: Session) -> None:
    def fail(_batch: Batch) -> None:
        raise RuntimeError("a defect")

    before, failing, after = Recorder(session), Recorder(session, on_delivery=fail), attach(session)
    await session.publish(drafts("a"))
    await session.publish(drafts("b"))

    assert failing.closed
    assert hub.subscribers.ended_by_reason == {EndReason.CRASHED: 1}
    assert before.data == data_of(after) == ["a", "b"]


async def test_a_subscriber_that_fails_at_a_heartbeat_is_dropped_alone(
    hub: Hub, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        gone.close(EndReason.CLIENT_GONE)
        raise RuntimeError("a defect")

    before, failing, gone, after = (Recorder(session) for _ in range(4))
    monkeypatch.setattr(failing, "heartbeat", fail)
    await session._heartbeat()

    assert failing.closed
    assert {EndReason.CRASHED: 1, EndReason.CLIENT_GONE: 1} == hub.subscribers.ended_by_reason
    assert [1, 0, 1] == [subscriber.beats for subscriber in (before, gone, after)]


async def test_a_subscriber_that_leaves_during_the_fan_out_gets_nothing_more(
    session: Session,
) -> None:
    leaving: list[Recorder] = []
    Recorder(session, on_delivery=lambda _: leaving[0].close(EndReason.CLIENT_GONE))
    leaving.append(Recorder(session))
    await session.publish(drafts("a"))

    assert leaving[0].data == []


# --- the end ---------------------------------------------------------------------------------


async def test_what_was_accepted_is_delivered_before_the_end() -> None:
    session = idle_session()
    live = attach(session)
    receipts: list[Receipt] = []
    refused: list[str] = []

    async def publish(data: str) -> None:
        try:
            receipts.append(await session.publish(drafts(data)))
        except SessionEnded:
            refused.append(data)

    async with trio.open_nursery() as nursery:
        for number in range(INBOX_PUBLICATIONS + 3):
            nursery.start_soon(publish, str(number))
        await trio.testing.wait_all_tasks_blocked()
        session.end(EndReason.SESSION_CLOSED)
        session.end(EndReason.SESSION_EXPIRED)
        nursery.start_soon(session.run)
    ending = chunk(encode_end(EndReason.SESSION_CLOSED)) + LAST_CHUNK

    assert len(receipts) == INBOX_PUBLICATIONS
    assert len(refused) == 3  # those that waited for room
    assert taken(live).endswith(ending)
    assert sorted(data_of(live)[:-1] + refused) == sorted(map(str, range(INBOX_PUBLICATIONS + 3)))


async def test_a_session_that_has_ended_takes_nothing_more(session: Session) -> None:
    session.end(EndReason.SESSION_CLOSED)
    with pytest.raises(SessionEnded):
        await session.publish(drafts("late"))
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(SessionEnded):
        await session.publish(drafts("later"))


@pytest.mark.parametrize("reason", [EndReason.SESSION_EXPIRED, EndReason.MEMORY])
async def test_publishing_again_helps_where_a_session_was_only_forgotten(
    reason: EndReason, session: Session
) -> None:
    session.end(reason)
    with pytest.raises(Unavailable, match="publish again") as refusal:
        await session.publish(drafts("late"))

    assert refusal.value.headers == {"Retry-After": "1"}


async def test_who_comes_to_a_session_that_has_ended_is_told(hub: Hub, session: Session) -> None:
    hub.end("s")
    early = Recorder(session)
    await trio.testing.wait_all_tasks_blocked()
    late = Recorder(session)

    assert early.last_words == ("disconnect", EndReason.SESSION_CLOSED, None) == late.last_words
    assert not hub.subscribers.by_id


async def test_a_reader_that_never_reads_its_end_is_cut(
    hub: Hub, session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    sock = ThrottledSocket(window=10)
    attach(session, sock)
    quick = attach(session)
    await session.publish(drafts("a", "b"))
    hub.end("s")
    await trio.testing.wait_all_tasks_blocked()

    assert data_of(quick)[-1].startswith('{"reason":"session_closed"')

    await trio.sleep(FINISH_TIMEOUT_S - 0.1)

    assert len(hub.subscribers) == 1

    await trio.sleep(0.2)

    assert not hub.subscribers.by_id
    assert bytes(sock.taken).endswith(LAST_CHUNK)
    assert hub.subscribers.ended_by_reason == {
        EndReason.SESSION_CLOSED: 1,
        EndReason.SLOW_CONSUMER: 1,
    }


async def test_publishers_of_a_session_that_fails_are_turned_away(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    refused: list[str] = []

    async def publish(data: str) -> None:
        try:
            await session.publish(drafts(data))
        except Unavailable:
            refused.append(data)

    live = Recorder(session)
    monkeypatch.setattr(session.log, "append", fail)
    with trio.fail_after(10):
        async with trio.open_nursery() as publishers:
            for number in range(3):
                publishers.start_soon(publish, str(number))

    assert sorted(refused) == ["0", "1", "2"]
    assert live.closed


# --- time, and figures -----------------------------------------------------------------------


async def test_heartbeats_come_only_after_silence(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    interval = session.limits.heartbeat_interval
    live = Recorder(session)

    async def beats_after(seconds: float) -> int:
        await trio.sleep(seconds)
        session.heartbeat_if_due(session.now())
        await trio.testing.wait_all_tasks_blocked()
        return live.beats

    assert await beats_after(interval - 1) == 0
    assert await beats_after(1) == 1
    assert await beats_after(interval - 1) == 1
    await session.publish(drafts("a"))
    assert await beats_after(interval - 1) == 1
    assert await beats_after(1) == 2


async def test_a_heartbeat_between_two_publications_neither_doubles_nor_loses_any(
    autojump_clock: trio.testing.MockClock,
) -> None:
    session = idle_session()
    live = attach(session)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.publish, drafts("a"))
        await trio.sleep(session.limits.heartbeat_interval)
        session.heartbeat_if_due(session.now())
        nursery.start_soon(session.publish, drafts("b"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()

        assert data_of(live) == ["a", "b"]
        assert chunk(HEARTBEAT) in taken(live)
        nursery.cancel_scope.cancel()


async def test_a_session_without_subscribers_needs_no_heartbeat(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    await trio.sleep(1000)
    session.heartbeat_if_due(session.now())

    assert session._inbox.statistics().current_buffer_used == 0


async def test_a_session_that_is_busy_or_has_ended_lets_the_heartbeat_be(
    autojump_clock: trio.testing.MockClock,
) -> None:
    session = idle_session()
    live = Recorder(session)
    async with trio.open_nursery() as nursery:
        for number in range(INBOX_PUBLICATIONS):
            nursery.start_soon(session.publish, drafts(str(number)))
        await trio.sleep(1000)
        session.heartbeat_if_due(session.now())
        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()
        session.end(EndReason.SESSION_CLOSED)
        session.heartbeat_if_due(session.now() + 1000)

    assert live.beats == 0


async def test_a_session_expires_when_nobody_used_it_for_its_ttl(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    ttl = session.limits.session_ttl
    await trio.sleep(ttl - 1)
    await session.publish(drafts("a"))

    assert not session.has_expired(session.now() + ttl - 1)
    assert session.has_expired(session.now() + ttl)

    live = Recorder(session)
    await trio.sleep(2 * ttl)

    assert not session.has_expired(session.now())

    live.close(EndReason.CLIENT_GONE)

    assert not session.has_expired(session.now() + ttl - 1)
    assert session.has_expired(session.now() + ttl)


async def test_statistics_are_what_an_operator_asks_for(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    await session.publish(drafts("a"))
    await trio.sleep(5)
    await session.publish(drafts("b"))
    await trio.sleep(5)
    idle = session.statistics()
    Recorder(session)
    listened_to = session.statistics()

    assert (idle.name, idle.subscribers, idle.pending_bytes) == ("s", 0, 0)
    assert (idle.age, idle.idle) == (10, 5)
    assert (idle.log.events, idle.log.last_id) == (2, session.log.id_of(2))
    assert (listened_to.subscribers, listened_to.pending_bytes, listened_to.idle) == (1, 7, 0)


async def test_events_are_counted(hub: Hub, session: Session) -> None:
    await session.publish(drafts("a", "b"))
    await session.publish([draft("c", key="k")])
    await session.publish([draft("c", key="k")])
