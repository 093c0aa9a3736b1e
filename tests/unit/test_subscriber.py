"""The common part of both kinds of subscriber: batches, last words, and positions."""

from __future__ import annotations

import trio

from broadcasterd.broadcast.batch import Batch
from broadcasterd.broadcast.subscriber import Ending
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Gap, Position
from broadcasterd.core.segment import Entry
from broadcasterd.core.wire import encode_end
from tests.support.broadcast import Recorder, drafts, start_hub


def entry(seq: int) -> Entry:
    return Entry(seq, b"<%d>" % seq, 0)


def test_a_batch_is_the_joined_frames_between_two_cursors() -> None:
    batch = Batch([entry(5), entry(6), entry(7)], offered=4)

    assert (batch.start, batch.end, batch.frames) == (4, 7, b"<5><6><7>")


def test_last_words_are_the_reason_and_when_to_come_back() -> None:
    assert Ending(EndReason.DRAINING, 1500).encode() == encode_end(
        EndReason.DRAINING, retry_ms=1500
    )


class At(Recorder):
    """Starts where the test says, and lets it see where that is."""

    def __init__(self, like: Recorder, position: Position) -> None:
        super(Recorder, self).__init__(like.feed, stream_id="x", peer="", position=position)
        self.told = self._gap


async def test_a_start_that_was_evicted_before_the_stream_began_is_a_gap(
    nursery: trio.Nursery,
) -> None:
    session = (await start_hub(nursery, max_history_events=2)).open("s")
    await session.publish(drafts(*"abcde"))
    any_one, id_of = Recorder(session), session.log.id_of

    assert At(any_one, Position(1)).told == Gap(id_of(1), id_of(4))
    assert At(any_one, Position(1)).cursor == 3
    assert At(any_one, Position(0, Gap("lost", id_of(1)))).told == Gap("lost", id_of(4))
    assert At(any_one, Position(3)).told is None
    assert At(any_one, Position(5)).cursor == 5
