"""The replay log: examples of its promises, and a model that it has to agree with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import PAGESIZE

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from broadcasterd.core import history
from broadcasterd.core.cost import (
    ENTRY_OVERHEAD_BYTES,
    ID_ROOM_BYTES,
    KEY_OVERHEAD_BYTES,
    OWN_TTL_OVERHEAD_BYTES,
    check_block_fits,
    cost_of,
)
from broadcasterd.core.decoder import decode
from broadcasterd.core.event import EncodedEvent, Event
from broadcasterd.core.expiries import Expiries
from broadcasterd.core.history import WASTED_BYTES
from broadcasterd.core.position import ById, First, Last, Now, Since
from broadcasterd.core.replaylog import (
    Gap,
    LogStatistics,
    Position,
    ReplayLog,
)
from broadcasterd.core.segment import (
    Entry,
    Segment,
)
from broadcasterd.core.wire import encode_block, encode_frame, unchunk
from broadcasterd.errors import TooLarge
from broadcasterd.handover import sealed
from broadcasterd.memory.account import Account

ALL = 1 << 40
"""More bytes than any log here holds."""


def make_log(
    *, incarnation: str = "7f3c", max_events: int = 100, max_bytes: int = ALL, max_age: float = 60
) -> ReplayLog:
    """Make a log that is bounded only as the test asks."""
    return ReplayLog(
        incarnation=incarnation, max_events=max_events, max_bytes=max_bytes, max_age=max_age
    )


def fill(log: ReplayLog, count: int, *, now: float = 0, ttl: float | None = None) -> None:
    """Append events whose data is the sequence number that they get."""
    for _ in range(count):
        log.append(encode_block(Event(str(log.last + 1))), now=now, ttl=ttl)


def retained(log: ReplayLog) -> list[int]:
    """Return the sequence numbers of all that is retained."""
    return [entry.seq for entry in log.since(0, max_bytes=ALL)]


# --- appending -------------------------------------------------------------------------------


def test_the_first_event_has_number_one_and_the_next_the_next() -> None:
    log = make_log()
    fill(log, 3)

    assert retained(log) == [1, 2, 3]
    assert 3 == log.last == len(log)


def test_an_event_may_come_with_its_number() -> None:
    log = make_log()
    entry = log.put(7, b"data: x\n\n", now=0)

    assert (7, encode_frame("7f3c-7", b"data: x\n\n")) == (entry.seq, entry.frame)
    assert 7 == log.last
    assert 8 == log.append(b"data: x\n\n", now=0).seq


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("bound", ["events", "bytes"])
def test_what_is_too_old_stays_until_somebody_looks_or_there_is_no_room(
    bound: str, more: int
) -> None:
    cost = cost_of(len(encode_frame("7f3c-1", b"x")), has_ttl=False, key=None)
    is_count = bound == "events"
    log = make_log(
        max_events=3 if is_count else 100, max_bytes=ALL if is_count else 3 * cost, max_age=10
    )
    for now in (0, 0, 20, *[20] * more):
        log.append(b"x", now=now)

    assert ([3, 4] if more else [1, 2, 3]) == retained(log)


def test_nothing_is_evicted_before_others_have_followed() -> None:
    log = make_log(max_events=3)
    for _ in range(5):
        log.append(b"x", now=0, more=True)

    assert [1, 2, 3, 4, 5] == retained(log)
    log.keep_bounds(0)
    assert [3, 4, 5] == retained(log)
    assert 2 == log.floor


def test_an_entry_is_the_frame_that_is_sent() -> None:
    log = make_log()
    entry = log.append(b"data: x\n\n", now=5, ttl=10, key="k")

    assert entry == Entry(1, encode_frame("7f3c-1", b"data: x\n\n"), 5, 10, "k")
    assert log.since(0, max_bytes=ALL) == [entry]
    assert decode([unchunk(entry.frame)])[0].last_event_id == "7f3c-1"


def test_beyond_the_count_the_oldest_goes() -> None:
    log = make_log(max_events=3)
    fill(log, 5)

    assert retained(log) == [3, 4, 5]
    assert log.floor == 2


def test_beyond_the_bytes_the_oldest_go_as_many_as_it_takes() -> None:
    log = make_log(max_bytes=1000)
    fill(log, 10)
    log.append(b"x" * 800, now=0)

    assert retained(log)[-1] == 11
    assert 1 < len(log) < 4
    assert log.bytes <= 1000


def test_an_event_that_could_never_be_retained_is_refused_and_changes_nothing() -> None:
    log = make_log(max_bytes=2000)
    fill(log, 2)
    before = log.statistics()

    with pytest.raises(TooLarge, match=r"3000 bytes .*max_history_bytes is 2000"):
        log.check_fit([EncodedEvent(b"x"), EncodedEvent(b"x" * 3000)])

    assert log.statistics() == before
    assert retained(log) == [1, 2]
    assert log.floor == 0


@pytest.mark.parametrize("key", [None, "k", "k" * 256, "é" * 256, "🦆" * 256])
def test_the_largest_block_that_fits_is_retained_with_its_key(key: str | None) -> None:
    max_bytes = 4000
    log = make_log(incarnation="0123456789abcdef", max_bytes=max_bytes)
    size = max(n for n in range(max_bytes) if fits(n, key=key, max_bytes=max_bytes))
    log.last = 10**18 - 2  # the longest id there can be

    entry = log.append(b"x" * size, now=0, key=key)

    assert log.since(0, max_bytes=ALL) == [entry]
    assert max_bytes - 64 < log.bytes <= max_bytes
    with pytest.raises(TooLarge):
        log.check_fit([EncodedEvent(b"x" * (size + 1), key=key)])


def fits(size: int, *, key: str | None, max_bytes: int, ttl: float | None = None) -> bool:
    """Whether a block of this size is accepted."""
    try:
        check_block_fits(b"x" * size, ttl=ttl, key=key, max_bytes=max_bytes)
    except TooLarge:
        return False
    return True


@pytest.mark.parametrize("key", [None, "key"])
@pytest.mark.parametrize("ttl", [None, 5.0])
def test_a_block_fits_with_its_ttl_and_its_key_to_the_byte(
    ttl: float | None, key: str | None
) -> None:
    least = cost_of(100 + ID_ROOM_BYTES, has_ttl=ttl is not None, key=key)

    assert fits(100, ttl=ttl, key=key, max_bytes=least)
    assert not fits(100, ttl=ttl, key=key, max_bytes=least - 1)


def test_a_log_may_be_filled_to_the_last_byte() -> None:
    first = make_log()
    fill(first, 3)
    log = make_log(max_bytes=first.bytes)
    fill(log, 3)

    assert (first.bytes, [1, 2, 3]) == (log.bytes, retained(log))
    fill(log, 1)
    assert [2, 3, 4] == retained(log)


@pytest.mark.parametrize("left", [0, 1, 7, 27, 40])
def test_trimming_takes_the_oldest_and_no_more_than_it_takes(left: int) -> None:
    log = make_log()
    for _ in range(40):
        log.append(b"x" * 1000, now=0)
    newest = log.since(40 - left, max_bytes=ALL)

    assert 40 - left == log.trim(sum(entry.cost for entry in newest))
    assert newest == log.since(0, max_bytes=ALL)


def test_an_event_whose_ttl_is_over_makes_room_and_is_nobodys_loss() -> None:
    log = make_log(max_events=2)
    fill(log, 1, now=0, ttl=5)
    fill(log, 2, now=10)

    assert retained(log) == [2, 3]
    assert log.floor == 0


# --- what it costs ---------------------------------------------------------------------------


def test_bytes_are_the_sum_of_what_each_entry_costs() -> None:
    log = make_log()
    plain = log.append(b"data: x\n\n", now=0)
    keyed = log.append(b"data: x\n\n", now=0, key="abc")
    brief = log.append(b"data: x\n\n", now=0, ttl=5)

    assert plain.cost == len(plain.frame) + ENTRY_OVERHEAD_BYTES
    assert keyed.cost == len(keyed.frame) + ENTRY_OVERHEAD_BYTES + KEY_OVERHEAD_BYTES + 3
    assert brief.cost == len(brief.frame) + ENTRY_OVERHEAD_BYTES + OWN_TTL_OVERHEAD_BYTES
    assert log.bytes == plain.cost + keyed.cost + brief.cost


def test_the_holes_that_short_lived_events_left_are_not_kept() -> None:
    log = make_log(max_events=10)
    fill(log, 1)
    for _ in range(5000):
        fill(log, 1, now=0, ttl=1)
        log.expire(1)
    fill(log, 1, now=1)

    assert retained(log) == [1, 5002]
    assert sum(segment.size for segment in log.segments) < 2 * WASTED_BYTES


def test_reading_what_is_new_does_not_look_at_what_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log(max_events=10_000)
    fill(log, 10_000)
    looked: list[int] = []
    entry = Segment.entry

    def counted(segment: Segment, index: int) -> Entry:
        looked.append(index)
        return entry(segment, index)

    monkeypatch.setattr(Segment, "entry", counted)

    assert [entry.seq for entry in log.since(9998, max_bytes=ALL)] == [9999, 10_000]
    assert len(looked) == 2


# --- expiring --------------------------------------------------------------------------------


def test_an_event_goes_when_it_is_as_old_as_allowed_and_not_before() -> None:
    log = make_log(max_age=60)
    fill(log, 1, now=0)
    fill(log, 1, now=30)

    assert log.expire(59.9) == 0
    assert log.expire(60) == 1
    assert retained(log) == [2]
    assert log.floor == 1


def test_an_event_with_a_ttl_of_its_own_goes_from_the_middle_and_leaves_no_gap() -> None:
    log = make_log(max_age=60)
    fill(log, 1)
    fill(log, 1, ttl=10)
    fill(log, 1)

    assert log.expire(10) == 1
    assert retained(log) == [1, 3]
    assert log.floor == 0
    assert log.resolve(ById("7f3c-1")) == Position(1)
    assert log.resolve(ById("7f3c-2")) == Position(2)


@pytest.mark.parametrize("ttl", [60, 1000])
def test_a_ttl_cannot_outlive_the_log(ttl: float) -> None:
    log = make_log(max_age=60)
    entry = log.append(b"data: x\n\n", now=0, ttl=ttl)

    assert entry.ttl is None
    assert log.expire(60) == 1
    assert log.floor == 1


def test_expiring_an_empty_log_is_nothing() -> None:
    assert make_log().expire(1000) == 0


def test_what_is_kept_of_short_lived_events_is_bounded() -> None:
    log = make_log(max_events=10)
    fill(log, 1000, ttl=30)

    assert len(log._short_lived) <= 2 * 10
    assert log.expire(30) == 10
    assert len(log._short_lived) == 0
    fill(log, 5, now=30, ttl=30)
    log.trim(0)
    assert len(log._short_lived) == 0


def test_a_log_that_goes_on_within_tighter_bounds_retains_what_they_allow() -> None:
    before, log = make_log(), make_log(max_events=2)
    fill(before, 5)
    log.go_on_from(floor=0, last=5, floor_at=0.0)
    for segment in before.segments:
        log.adopt(segment)

    assert [4, 5] == retained(log)
    assert 3 == log.floor


def test_a_log_that_goes_on_knows_keys_and_what_is_short_lived() -> None:
    before, log = make_log(), make_log()
    before.append(b"data: x\n\n", now=5, key="k")
    before.append(b"data: x\n\n", now=5, ttl=10)
    log.go_on_from(floor=0, last=2, floor_at=0.0)
    for segment in before.segments:
        log.adopt(segment)

    assert 1 == log.duplicate_of("k")
    assert [0, 1] == [log.expire(14.9), log.expire(15)]
    assert [1] == retained(log)


@pytest.mark.parametrize(("now", "share", "released"), [(60, 1.0, 0), (30, 0.5, PAGESIZE)])
def test_memory_is_given_back_where_it_is_needed_and_not_bit_by_bit(
    now: float, share: float, released: int
) -> None:
    log = make_log(max_events=1000, max_age=60)
    for n in range(300):
        log.append(b"x" * 1000, now=0 if n < 5 else 20)

    assert 5 == log.expire(now, share=share)
    assert released == log.segments[0].released


def test_short_lived_events_are_gone_through_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    gone_through: list[int] = []
    keep = Expiries.keep

    def counted(expiries: Expiries, wanted: Callable[[int], bool]) -> None:
        gone_through.append(len(expiries))
        keep(expiries, wanted)

    monkeypatch.setattr(Expiries, "keep", counted)
    fill(make_log(max_events=10), 1000, ttl=30)

    assert {2 * 10 + 1} == set(gone_through)


# --- reading ---------------------------------------------------------------------------------


def test_reading_gives_what_follows_the_cursor() -> None:
    log = make_log()
    fill(log, 5)

    assert [entry.seq for entry in log.since(3, max_bytes=ALL)] == [4, 5]
    assert log.since(5, max_bytes=ALL) == []


def test_reading_stays_within_its_bytes_but_gives_at_least_one() -> None:
    log = make_log()
    fill(log, 5)
    size = len(log.since(0, max_bytes=ALL)[0].frame)

    assert len(log.since(0, max_bytes=0)) == 1
    assert len(log.since(0, max_bytes=2 * size - 1)) == 1
    assert len(log.since(0, max_bytes=2 * size)) == 2


def test_reading_stays_within_its_count() -> None:
    log = make_log()
    fill(log, 5)
    fill(log, 1, ttl=5)
    fill(log, 5)
    log.expire(5)

    for count in range(1, 9):
        read = log.since(2, max_bytes=ALL, max_events=count)
        assert [entry.seq for entry in read] == [3, 4, 5, 7, 8, 9, 10, 11][:count]


# --- ids -------------------------------------------------------------------------------------


def test_an_id_leads_back_to_its_number() -> None:
    log = make_log()
    fill(log, 12)

    assert log.id_of(12) == "7f3c-12"
    assert [log.seq_of("7f3c-1"), log.seq_of("7f3c-12")] == [1, 12]


def test_the_id_of_the_very_beginning_is_known() -> None:
    """A client that started before the first event was primed with it."""
    log = make_log()

    assert log.resolve(ById(log.id_of(log.resolve(Now()).cursor))) == Position(0)


@pytest.mark.parametrize(
    "event_id",
    [
        "",
        "7f3c",
        "7f3c-",
        "-1",
        "7f3c-4",
        "7f3c--1",
        "7f3c-1 ",
        "7f3c-+1",
        "7f3c-١",  # noqa: RUF001
        "7f3d-1",
        "7f3c-1\n",
        "7F3C-1",
        "1",
        "7f3c-" + "9" * 5000,
        "x-7f3c-1",
    ],
)
def test_an_id_that_was_never_given_is_unknown(event_id: str) -> None:
    log = make_log()
    fill(log, 3)

    assert log.seq_of(event_id) is None
    assert log.resolve(ById(event_id)) == Position(0, Gap(event_id, "7f3c-1"))


def test_an_incarnation_may_hold_a_dash() -> None:
    log = make_log(incarnation="a-b")
    fill(log, 1)

    assert log.seq_of("a-b-1") == 1


# --- where to start --------------------------------------------------------------------------


@pytest.fixture
def worn() -> ReplayLog:
    """Return a log with 4, 6, 7 and 9 of 9: 1 to 3 were evicted, 5 and 8 were short-lived."""
    log = make_log(max_events=4)
    fill(log, 4, now=10)
    fill(log, 1, now=20, ttl=5)
    fill(log, 2, now=21)
    log.expire(25)
    fill(log, 1, now=25, ttl=1)
    log.expire(26)
    fill(log, 1, now=30)
    assert retained(log) == [4, 6, 7, 9]
    assert log.floor == 3
    return log


def test_the_first_is_everything_retained_and_no_gap(worn: ReplayLog) -> None:
    assert worn.resolve(First()) == Position(worn.floor)


def test_now_is_after_the_last(worn: ReplayLog) -> None:
    assert worn.resolve(Now()) == Position(worn.last)
    assert worn.since(worn.last, max_bytes=ALL) == []


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [9]), (2, [7, 9]), (3, [6, 7, 9]), (4, [4, 6, 7, 9]), (100, [4, 6, 7, 9])],
)
def test_the_last_counts_what_is_retained(worn: ReplayLog, count: int, expected: list[int]) -> None:
    position = worn.resolve(Last(count))

    assert position.gap is None
    assert [entry.seq for entry in worn.since(position.cursor, max_bytes=ALL)] == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(10.5, [6, 7, 9]), (22, [9]), (30.5, [])],
)
def test_since_is_what_came_then_or_later(
    worn: ReplayLog, moment: float, expected: list[int]
) -> None:
    position = worn.resolve(Since(moment))

    assert position.gap is None
    assert [entry.seq for entry in worn.since(position.cursor, max_bytes=ALL)] == expected


@pytest.mark.parametrize("moment", [0, 10])
def test_a_time_from_which_something_was_evicted_is_a_gap(worn: ReplayLog, moment: float) -> None:
    expected = Position(worn.floor, Gap("then", "7f3c-4"))

    assert worn.resolve(Since(moment, "then")) == expected


def test_a_position_is_renewed_when_what_follows_it_was_evicted(worn: ReplayLog) -> None:
    assert worn.renewed(Position(3)) == Position(3)
    assert worn.renewed(Position(2)) == Position(3, Gap("7f3c-2", "7f3c-4"))
    assert worn.renewed(Position(0, Gap("x", "7f3c-1"))) == Position(3, Gap("x", "7f3c-4"))


@pytest.mark.parametrize("seq", [3, 4, 5, 6, 7, 8, 9])
def test_an_id_after_which_nothing_is_lost_is_no_gap(worn: ReplayLog, seq: int) -> None:
    assert worn.resolve(ById(f"7f3c-{seq}")) == Position(seq)


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_an_id_after_which_something_is_lost_is_a_gap(worn: ReplayLog, seq: int) -> None:
    asked = f"7f3c-{seq}"

    assert worn.resolve(ById(asked)) == Position(worn.floor, Gap(asked, "7f3c-4"))


def test_a_gap_in_an_empty_log_has_no_oldest() -> None:
    assert make_log().resolve(ById("other-5")) == Position(0, Gap("other-5", None))


def test_a_gap_further_on_names_what_follows_there(worn: ReplayLog) -> None:
    assert worn.gap("7f3c-1", after=4) == Gap("7f3c-1", "7f3c-6")
    assert worn.gap("7f3c-1", after=9) == Gap("7f3c-1", None)


@pytest.mark.parametrize("start", [First(), Now(), Last(5), Since(0)])
def test_an_empty_log_starts_with_the_next_event(start: First | Now | Last | Since) -> None:
    log = make_log()
    position = log.resolve(start)
    fill(log, 1)

    assert position == Position(0)
    assert len(log.since(position.cursor, max_bytes=ALL)) == 1


# --- duplicates ------------------------------------------------------------------------------


def test_a_key_is_known_while_its_event_is_retained() -> None:
    log = make_log(max_events=2)
    log.append(b"data: x\n\n", now=0, key="k")
    fill(log, 1)

    assert log.duplicate_of("k") == 1
    fill(log, 1)
    assert log.duplicate_of("k") is None


def test_no_key_and_a_new_key_are_no_duplicates() -> None:
    log = make_log()
    log.append(b"data: x\n\n", now=0)

    assert log.duplicate_of(None) is None
    assert log.duplicate_of("k") is None


def test_a_key_that_is_used_again_after_its_event_expired_is_the_new_events() -> None:
    log = make_log()
    log.append(b"data: x\n\n", now=0, key="k", ttl=5)
    log.expire(5)
    log.append(b"data: x\n\n", now=5, key="k")

    assert log.duplicate_of("k") == 2


def test_a_key_that_is_used_twice_is_the_newer_events_whatever_becomes_of_the_older() -> None:
    log = make_log(max_events=2)
    log.append(b"data: x\n\n", now=0, key="k")
    log.append(b"data: x\n\n", now=0, key="k")
    fill(log, 1)

    assert retained(log) == [2, 3]
    assert log.duplicate_of("k") == 2


# --- in figures ------------------------------------------------------------------------------


def test_the_statistics_of_an_empty_log() -> None:
    assert make_log().statistics() == LogStatistics(0, 0, None, None, None)


def test_the_statistics_name_the_oldest_and_the_last() -> None:
    log = make_log(max_events=2)
    for now in range(3):
        fill(log, 1, now=now)

    assert log.statistics() == LogStatistics(2, log.bytes, "7f3c-2", "7f3c-3", 1)


def test_the_last_id_stays_when_everything_has_expired() -> None:
    log = make_log()
    fill(log, 3)
    log.expire(1000)

    assert log.statistics() == LogStatistics(0, 0, None, "7f3c-3", None)
    assert log.resolve(ById("7f3c-3")) == Position(3)
    assert log.resolve(ById("7f3c-2")) == Position(3, Gap("7f3c-2", None))


# --- against a model -------------------------------------------------------------------------


@dataclass
class Model:
    """The same log as a plain list, written to be right and nothing else."""

    max_events: int
    max_bytes: int
    max_age: float
    entries: list[Entry] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # left because of a bound
    lost_at: float = -math.inf  # when the newest of those was appended
    wished: set[int] = field(default_factory=set)  # left because of a ttl of their own
    last: int = 0

    @property
    def bytes(self) -> int:
        return sum(entry.cost for entry in self.entries)

    @property
    def floor(self) -> int:
        return max(self.lost, default=0)

    def lose(self, entry: Entry) -> None:
        self.lost.add(entry.seq)
        self.lost_at = entry.appended_at
        self.entries.remove(entry)

    def over(self) -> bool:
        return len(self.entries) > self.max_events or self.bytes > self.max_bytes

    def append(self, entry: Entry, now: float) -> None:
        self.last += 1
        self.entries.append(entry)
        if self.over():
            self.expire(now)
        while self.over():
            self.lose(self.entries[0])

    def expire(self, now: float, share: float = 1) -> int:
        before = len(self.entries)
        for entry in list(self.entries):
            if entry.ttl is not None and entry.appended_at + entry.ttl <= now:
                self.wished.add(entry.seq)
                self.entries.remove(entry)
            elif entry.appended_at + self.max_age * share <= now:
                self.lose(entry)
        return before - len(self.entries)

    def trim(self, to_bytes: int) -> int:
        before = len(self.entries)
        while self.bytes > to_bytes:
            self.lose(self.entries[0])
        return before - len(self.entries)

    def after(self, cursor: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.seq > cursor]

    def of_key(self, key: str) -> int | None:
        return next((entry.seq for entry in self.entries if entry.key == key), None)


ELSEWHERE = 10_000
"""Bytes that other logs hold on the same account."""

KEYS = ["k1", "k2", "é3", "🦆"]


# --- other bounds ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "left"),
    [
        ({"max_events": 3, "max_bytes": ALL, "max_age": 60}, [8, 9, 10]),
        ({"max_events": 100, "max_bytes": ENTRY_OVERHEAD_BYTES + 50, "max_age": 60}, [10]),
        ({"max_events": 100, "max_bytes": ALL, "max_age": 60}, [*range(1, 11)]),
    ],
    ids=["fewer events", "fewer bytes", "the same"],
)
def test_what_is_over_other_bounds_is_evicted_at_once(
    bounds: dict[str, int], left: list[int]
) -> None:
    log = make_log()
    fill(log, 10)
    log.resize(**bounds)

    assert left == retained(log)
    assert left[0] - 1 == log.floor


def test_what_is_too_old_by_another_age_goes_with_the_next_look() -> None:
    log = make_log(max_age=60)
    fill(log, 1, now=0)
    fill(log, 1, now=20)
    log.resize(max_events=100, max_bytes=ALL, max_age=10)
    log.expire(25)

    assert [2] == retained(log)

    log.resize(max_events=100, max_bytes=ALL, max_age=100)
    log.expire(119)

    assert [2] == retained(log)


@settings(stateful_step_count=60)
class AgainstAModel(RuleBasedStateMachine):
    """Drives a log and its model alike. Times are whole seconds, so that floats are exact."""

    @initialize(
        max_events=st.integers(1, 20),
        max_bytes=st.integers(500, 4000),
        max_age=st.integers(1, 20),
        sizes=st.sampled_from([(1, 1, 0), (200, 1, 100), (200, 300, 0), (500, 1, 1024), None]),
    )
    def begin(
        self, max_events: int, max_bytes: int, max_age: int, sizes: tuple[int, int, int] | None
    ) -> None:
        """Make an empty log with some bounds, which may seal and copy segments far too soon."""
        self.patches = pytest.MonkeyPatch()
        if sizes is not None:
            self.patches.setattr(history, "MIN_SEGMENT_BYTES", sizes[0])
            self.patches.setattr(history, "SMALL_BYTES", sizes[1])
            self.patches.setattr(history, "SMALL_AGAIN_BYTES", sizes[1] * 3 // 4)
            self.patches.setattr(history, "WASTED_BYTES", sizes[2])
        self.account = Account()
        self.account.bytes = ELSEWHERE
        self.log = ReplayLog(
            incarnation="7f3c",
            max_events=max_events,
            max_bytes=max_bytes,
            max_age=max_age,
            account=self.account,
        )
        self.model = Model(max_events, max_bytes, max_age)
        self.now = 100.0

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        """Nothing leaves by itself."""
        self.now += seconds

    @rule(
        size=st.integers(1, 400),
        ttl=st.none() | st.integers(1, 25),
        key=st.none() | st.sampled_from(KEYS),
    )
    def append(self, size: int, ttl: int | None, key: str | None) -> None:
        """As a session does: look for a duplicate first, and refuse what does not fit."""
        if key is not None and self.model.of_key(key) is not None:
            assert self.log.duplicate_of(key) == self.model.of_key(key)
            return
        block = b"x" * size
        if not fits(size, ttl=ttl, key=key, max_bytes=self.model.max_bytes):
            with pytest.raises(TooLarge):
                self.log.check_fit([EncodedEvent(block, ttl, key)])
            return
        self.append_to_both(block, ttl, key, more=False)

    @rule(
        sizes=st.lists(st.integers(1, 400), min_size=1, max_size=40),
        ttl=st.none() | st.integers(1, 25),
    )
    def append_many(self, sizes: list[int], ttl: int | None) -> None:
        """Without a look at the bounds in between; what is left is the same."""
        for size in sizes:
            if fits(size, ttl=ttl, key=None, max_bytes=self.model.max_bytes):
                self.append_to_both(b"x" * size, ttl, None, more=True)
        self.log.keep_bounds(self.now)

    def append_to_both(self, block: bytes, ttl: int | None, key: str | None, *, more: bool) -> None:
        """Append to the log and to the model."""
        entry = self.log.append(block, now=self.now, ttl=ttl, key=key, more=more)

        own_ttl = None if ttl is None or ttl >= self.model.max_age else ttl
        frame = encode_frame(f"7f3c-{self.model.last + 1}", block)
        assert entry == Entry(self.model.last + 1, frame, self.now, own_ttl, key)
        self.model.append(entry, self.now)

    @rule(more=st.integers(1, 5000))
    def look_whether_it_fits(self, more: int) -> None:
        """It does not; the invariants see that nothing has changed."""
        with pytest.raises(TooLarge):
            self.log.check_fit([EncodedEvent(b"x" * (self.model.max_bytes + more))])

    @rule()
    def expire(self) -> None:
        """What is over leaves, and is counted."""
        assert self.log.expire(self.now) == self.model.expire(self.now)
        for entry in self.log.since(0, max_bytes=ALL):
            assert self.now < entry.appended_at + self.model.max_age
            assert entry.ttl is None or self.now < entry.appended_at + entry.ttl

    @rule(share=st.sampled_from([0.25, 0.5]))
    def expire_early(self, share: float) -> None:
        """Under pressure the old leave sooner, and that is a loss."""
        assert self.log.expire(self.now, share=share) == self.model.expire(self.now, share)

    @rule(share=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
    def trim(self, share: float) -> None:
        """Under pressure the oldest leave, as many as it takes."""
        to_bytes = int(self.model.bytes * share)
        assert self.log.trim(to_bytes) == self.model.trim(to_bytes)
        assert self.log.bytes <= to_bytes

    @rule(
        back=st.integers(0, 30),
        max_bytes=st.integers(0, 2000),
        max_events=st.none() | st.integers(1, 5),
    )
    def read(self, back: int, max_bytes: int, max_events: int | None) -> None:
        """A reader gets the next events: at least one, and no more than it asked for."""
        cursor = max(0, self.model.last - back)
        read = self.log.since(cursor, max_bytes=max_bytes, max_events=max_events)

        due = self.model.after(cursor)
        assert read == due[: len(read)]
        assert bool(read) == bool(due)
        assert max_events is None or len(read) <= max_events
        assert len(read) <= 1 or sum(len(entry.frame) for entry in read) <= max_bytes
        if len(read) < len(due) and len(read) != max_events:
            assert sum(len(entry.frame) for entry in due[: len(read) + 1]) > max_bytes
        if read and cursor >= self.log.floor:
            passed = set(range(cursor + 1, read[-1].seq)) - {entry.seq for entry in read}
            assert passed <= self.model.wished

    @rule(back=st.integers(0, 30), max_bytes=st.integers(0, 2000), share=st.floats(0.001, 1))
    def read_as_bytes(self, back: int, max_bytes: int, share: float) -> None:
        """A reader is sent the same in one piece, and knows how much of it was taken."""
        cursor = max(0, self.model.last - back)
        due = self.model.after(cursor)
        run = self.log.run_after(cursor, max_bytes=max_bytes)
        if run is None:
            assert not due
            return

        frames = [entry.frame for entry in due[: run.count]]
        assert b"".join(frames) == run.frames
        assert list(run) == frames
        assert run.end == due[run.count - 1].seq
        assert run.count == 1 or len(run.frames) <= max_bytes

        sent = max(1, int(len(run.frames) * share))
        cut = run.cut(sent)
        begun = b"".join(frames[: cut.count])
        assert len(begun) - len(frames[cut.count - 1]) < sent <= len(begun)
        assert begun[sent:] == cut.rest
        assert cut.cursor == due[cut.count - 1].seq

    @rule()
    def go_on_in_another_process(self) -> None:
        """Segments as they are, and the rest event by event: nothing is lost."""
        before = self.log
        whole = sealed.movable(before.segments)
        self.log = ReplayLog(
            incarnation="7f3c",
            max_events=self.model.max_events,
            max_bytes=self.model.max_bytes,
            max_age=self.model.max_age,
            account=self.account,
        )
        self.log.go_on_from(floor=before.floor, last=before.last, floor_at=before.floor_at)
        for segment in whole:
            left = sealed.leave(segment, now=self.now)
            self.log.adopt(sealed.take(left, now=self.now))
        for segment in before.segments[len(whole) :]:
            for entry in map(segment.entry, segment.following(segment.head)):
                self.log.restore(
                    entry.seq,
                    entry.frame,
                    appended_at=entry.appended_at,
                    ttl=entry.ttl,
                    key=entry.key,
                )
        before.trim(0)

    @override
    def teardown(self) -> None:
        """Seal segments as ever."""
        if hasattr(self, "patches"):
            self.patches.undo()

    @rule(back=st.integers(0, 30))
    def resume(self, back: int) -> None:
        """A client that saw an event is told of a gap exactly if it has lost something."""
        seq = max(0, self.model.last - back)
        asked = f"7f3c-{seq}"
        has_lost = any(lost > seq for lost in self.model.lost)

        expected = Position(self.model.floor, self.gap(asked)) if has_lost else Position(seq)
        assert self.log.resolve(ById(asked)) == expected

    @rule(event_id=st.sampled_from(["", "other-1", "7f3c-x", "7f3c-999999"]))
    def resume_from_elsewhere(self, event_id: str) -> None:
        """An id of another log is a gap, and then everything."""
        expected = Position(self.model.floor, self.gap(event_id))
        assert self.log.resolve(ById(event_id)) == expected

    @rule(count=st.integers(0, 10))
    def start_with_the_last(self, count: int) -> None:
        """The newest so many, or as many as there are."""
        position = self.log.resolve(Last(count))

        assert position.gap is None
        newest = self.model.entries[-count:] if count else []
        assert self.log.since(position.cursor, max_bytes=ALL) == newest

    @rule(ago=st.integers(0, 30))
    def start_with_a_time(self, ago: int) -> None:
        """What came then or later."""
        moment = self.now - ago
        position = self.log.resolve(Since(moment, "then"))

        assert (position.gap is not None) == (self.model.lost_at >= moment)
        came = [entry for entry in self.model.entries if entry.appended_at >= moment]
        assert self.log.since(position.cursor, max_bytes=ALL) == came

    @rule()
    def start_at_the_ends(self) -> None:
        """With the first, and with the next."""
        assert self.log.resolve(First()) == Position(self.model.floor)
        assert self.log.resolve(Now()) == Position(self.model.last)

    @precondition(lambda self: self.model.entries)
    @rule()
    def a_time_later_than_all_empties_it(self) -> None:
        """However long nobody looked."""
        self.now += self.model.max_age
        self.expire()
        assert 0 == len(self.log) == self.log.bytes

    def gap(self, asked: str) -> Gap:
        """Return the gap that a reader of everything is told of."""
        oldest = self.model.entries[0].seq if self.model.entries else None
        return Gap(asked, None if oldest is None else f"7f3c-{oldest}")

    @invariant()
    def what_is_retained_is_what_the_model_has(self) -> None:
        """In order, whole, and with ids that are unique and rise."""
        retained = self.log.since(0, max_bytes=ALL)

        assert retained == self.model.entries
        assert len(retained) == len(self.log)
        assert all(e.frame.endswith(b"id: 7f3c-%d\n\n\r\n" % e.seq) for e in retained)
        assert (self.log.last, self.log.floor) == (self.model.last, self.model.floor)

    @invariant()
    def the_bounds_hold(self) -> None:
        """At every moment, and of what is kept beside the entries too."""
        assert self.model.bytes == self.log.bytes <= self.model.max_bytes
        assert self.account.bytes == ELSEWHERE + self.log.accounted
        assert len(self.log) <= self.model.max_events
        assert len(self.log._short_lived) <= 2 * self.model.max_events
        keys = {e.key: e.seq for e in self.model.entries if e.key}
        assert len(self.log._keys) == len(keys)
        assert keys == {key: self.log.duplicate_of(key) for key in keys}

    @invariant()
    def the_figures_are_true(self) -> None:
        """What operators and the breaker read."""
        entries, last = self.model.entries, self.model.last

        expected = LogStatistics(
            events=len(entries),
            bytes=self.model.bytes,
            oldest_id=f"7f3c-{entries[0].seq}" if entries else None,
            last_id=f"7f3c-{last}" if last else None,
            oldest_at=entries[0].appended_at if entries else None,
        )
        assert self.log.statistics() == expected


TestAgainstAModel = pytest.mark.slow(AgainstAModel.TestCase)
