"""The poller: a holder is told when its socket is ready, and suffers its own failures only."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing
from typing_extensions import override

from broadcasterd.broadcast.poller import READY_SLICE, Poller


class Holder:
    """A socket of a pair, and what its holder was told.

    Args:
        heard: called when it is told that it can read; reads by default.

    """

    def __init__(self, *, heard: Callable[[Holder], None] | None = None) -> None:
        self.sock, self.peer = socket.socketpair()
        self.sock.settimeout(0)
        self.peer.settimeout(0)
        self.told: list[str] = []
        self.failures: list[Exception] = []
        self.received = b""
        self.at_eof = False
        self.wrote: Callable[[Holder], None] = lambda _: None
        self._heard = heard or Holder.receive

    def on_readable(self) -> None:
        self.told.append("readable")
        self._heard(self)

    def on_writable(self) -> None:
        self.told.append("writable")
        self.wrote(self)

    def on_failure(self, error: Exception) -> None:
        self.failures.append(error)

    def receive(self) -> None:
        data = self.sock.recv(65536)
        self.received += data
        self.at_eof = not data

    def fill(self) -> None:
        """Write until there is no room."""
        with ExitStack() as until_full:
            until_full.enter_context(pytest.raises(BlockingIOError))
            while True:
                self.sock.send(b"\0" * 65536)

    def drain(self) -> None:
        """Read on the other end all that there is."""
        with ExitStack() as until_empty:
            until_empty.enter_context(pytest.raises(BlockingIOError))
            while True:
                self.peer.recv(65536)

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


Make = Callable[..., Holder]


@pytest.fixture
def make() -> Iterator[Make]:
    """Return what makes holders; their sockets are closed after the test."""
    with ExitStack() as stack:

        def make(heard: Callable[[Holder], None] | None = None) -> Holder:
            holder = Holder(heard=heard)
            stack.callback(holder.close)
            return holder

        yield make


@pytest.fixture
async def poller(nursery: trio.Nursery) -> Poller:
    """Run a poller; it is closed with the nursery."""
    poller = Poller()

    async def run() -> None:
        try:
            await poller.run()
        finally:
            poller.close()

    nursery.start_soon(run)
    return poller


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# --- being told ------------------------------------------------------------------------------


async def test_nobody_is_told_anything_where_nothing_happens(poller: Poller, make: Make) -> None:
    holder = make()
    poller.add(holder.sock, holder)
    await settle()

    assert [] == holder.told


async def test_who_has_something_to_read_is_told(poller: Poller, make: Make) -> None:
    holder, other = make(), make()
    poller.add(holder.sock, holder)
    poller.add(other.sock, other)
    holder.peer.send(b"hello")
    await settle()

    assert b"hello" == holder.received
    assert ["readable"] == holder.told
    assert [] == other.told


async def test_it_is_told_again_as_long_as_something_is_left(poller: Poller, make: Make) -> None:
    def read_a_byte(holder: Holder) -> None:
        holder.received += holder.sock.recv(1)

    holder = make(read_a_byte)
    poller.add(holder.sock, holder)
    holder.peer.send(b"abc")
    await settle()

    assert b"abc" == holder.received
    assert ["readable"] * 3 == holder.told


async def test_a_client_that_closes_is_something_to_read(poller: Poller, make: Make) -> None:
    def receive_and_leave(holder: Holder) -> None:
        holder.receive()
        if holder.at_eof:
            poller.remove(holder.sock)

    holder = make(receive_and_leave)
    poller.add(holder.sock, holder)
    holder.peer.close()
    await settle()

    assert holder.at_eof
    assert ["readable"] == holder.told


async def test_a_client_that_sends_no_more_is_something_to_read(poller: Poller, make: Make) -> None:
    def receive_and_leave(holder: Holder) -> None:
        holder.receive()
        poller.remove(holder.sock)

    holder = make(receive_and_leave)
    poller.add(holder.sock, holder)
    holder.peer.shutdown(socket.SHUT_WR)
    await settle()

    assert holder.at_eof


async def test_room_is_told_of_only_where_it_is_awaited(poller: Poller, make: Make) -> None:
    holder = make()
    poller.add(holder.sock, holder)
    await settle()

    assert [] == holder.told

    holder.wrote = lambda holder: poller.await_room(holder.sock, wanted=False)
    poller.await_room(holder.sock, wanted=True)
    await settle()

    assert ["writable"] == holder.told


async def test_room_is_told_of_when_the_client_has_read(poller: Poller, make: Make) -> None:
    holder = make()
    holder.wrote = lambda holder: poller.await_room(holder.sock, wanted=False)
    poller.add(holder.sock, holder)
    holder.fill()
    poller.await_room(holder.sock, wanted=True)
    await settle()

    assert [] == holder.told

    holder.drain()
    await settle()

    assert ["writable"] == holder.told


async def test_who_can_read_and_write_is_told_both(poller: Poller, make: Make) -> None:
    holder = make()
    holder.wrote = lambda holder: poller.await_room(holder.sock, wanted=False)
    poller.add(holder.sock, holder)
    poller.await_room(holder.sock, wanted=True)
    holder.peer.send(b"x")
    await settle()

    assert ["readable", "writable"] == holder.told


# --- removal ---------------------------------------------------------------------------------


async def test_who_was_removed_is_told_nothing_more(poller: Poller, make: Make) -> None:
    holder = make()
    poller.add(holder.sock, holder)
    poller.remove(holder.sock)
    holder.peer.send(b"x")
    await settle()

    assert [] == holder.told
    assert {} == poller._polled


async def test_who_leaves_while_it_reads_is_not_told_of_room(poller: Poller, make: Make) -> None:
    holder = make(lambda holder: poller.remove(holder.sock))
    poller.add(holder.sock, holder)
    poller.await_room(holder.sock, wanted=True)
    holder.peer.send(b"x")
    await settle()

    assert ["readable"] == holder.told


async def test_who_was_removed_by_one_that_was_told_before_it_is_told_nothing(
    poller: Poller, make: Make
) -> None:
    there: list[Holder] = []

    def close_all(_: Holder) -> None:
        for holder in there:
            poller.remove(holder.sock)
            holder.sock.close()

    there += [make(close_all) for _ in range(3)]
    for holder in there:
        poller.add(holder.sock, holder)
        holder.peer.send(b"x")
    await settle()

    assert 1 == sum(len(holder.told) for holder in there)
    assert {} == poller._polled


async def test_removing_twice_or_what_never_was_there_is_nothing(
    poller: Poller, make: Make
) -> None:
    holder, stranger = make(), make()
    poller.add(holder.sock, holder)
    poller.remove(stranger.sock)
    poller.remove(holder.sock)
    poller.remove(holder.sock)
    holder.sock.close()
    poller.remove(holder.sock)

    assert {} == poller._polled


async def test_a_number_that_is_given_again_belongs_to_the_new_holder(
    poller: Poller, make: Make
) -> None:
    old = make()
    poller.add(old.sock, old)
    number = old.sock.fileno()
    poller.remove(old.sock)
    old.close()
    new = next(holder for holder in (make() for _ in range(100)) if holder.sock.fileno() == number)
    poller.add(new.sock, new)
    new.peer.send(b"x")
    await settle()

    assert [] == old.told
    assert b"x" == new.received


async def test_a_number_that_is_given_again_in_the_same_round_is_not_mistaken(
    poller: Poller, make: Make
) -> None:
    """Both are ready at once; the first to be told closes the other, whose number is reused."""
    there: list[Holder] = []
    newcomers: list[Holder] = []

    def replace_the_other(holder: Holder) -> None:
        holder.receive()
        [other] = [found for found in there if found is not holder]
        if other.sock.fileno() >= 0:
            number = other.sock.fileno()
            poller.remove(other.sock)
            other.close()
            while not newcomers or newcomers[-1].sock.fileno() != number:
                newcomers.append(make())
            poller.add(newcomers[-1].sock, newcomers[-1])

    there += [make(replace_the_other) for _ in range(2)]
    for holder in there:
        poller.add(holder.sock, holder)
        holder.peer.send(b"x")
    await settle()

    assert 1 == sum(len(holder.told) for holder in there)
    # At worst it was told of what is not there: reading then finds nothing, and that is no harm.
    assert b"" == newcomers[-1].received
    assert all(isinstance(error, BlockingIOError) for error in newcomers[-1].failures)


# --- failures --------------------------------------------------------------------------------


async def test_a_failure_is_its_own_holders(poller: Poller, make: Make) -> None:
    def fail(holder: Holder) -> None:
        poller.remove(holder.sock)
        raise ValueError("of this one only")

    there = [make(fail if number == 3 else None) for number in range(7)]
    for holder in there:
        poller.add(holder.sock, holder)
        holder.peer.send(b"x")
    await settle()

    assert [0, 0, 0, 1, 0, 0, 0] == [len(holder.failures) for holder in there]
    assert "of this one only" == str(there[3].failures[0])
    assert [b"x"] * 6 == [holder.received for holder in there if holder is not there[3]]


async def test_a_failure_to_write_is_told_as_well(poller: Poller, make: Make) -> None:
    def fail(holder: Holder) -> None:
        poller.remove(holder.sock)
        raise OSError("no room at all")

    holder = make()
    holder.wrote = fail
    poller.add(holder.sock, holder)
    poller.await_room(holder.sock, wanted=True)
    await settle()

    assert ["no room at all"] == [str(error) for error in holder.failures]


async def test_it_goes_on_after_a_failure(poller: Poller, make: Make) -> None:
    def fail(holder: Holder) -> None:
        poller.remove(holder.sock)
        raise ValueError

    broken, sound = make(fail), make()
    for holder in (broken, sound):
        poller.add(holder.sock, holder)
    broken.peer.send(b"x")
    await settle()
    sound.peer.send(b"x")
    await settle()

    assert b"x" == sound.received


async def test_a_cancellation_is_no_failure(make: Make) -> None:
    poller = Poller()
    holder = make()
    poller.add(holder.sock, holder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await settle()
        nursery.cancel_scope.cancel()
    poller.close()

    assert [] == holder.failures


# --- many ------------------------------------------------------------------------------------


async def test_many_that_are_ready_at_once_let_others_run_in_between(
    poller: Poller, make: Make
) -> None:
    steps = Steps()
    there = [make() for _ in range(3 * READY_SLICE + 1)]
    for holder in there:
        poller.add(holder.sock, holder)
        holder.peer.send(b"x")
    trio.lowlevel.add_instrument(steps)
    steps.handled = lambda: sum(len(holder.told) for holder in there)
    await settle()
    trio.lowlevel.remove_instrument(steps)

    assert [READY_SLICE] * 3 + [1] == [handled for handled in steps.each if handled]
    assert [b"x"] * len(there) == [holder.received for holder in there]


class Steps(trio.abc.Instrument):
    """Counts what is handled in each step of a task."""

    def __init__(self) -> None:
        self.each: list[int] = []
        self.handled: Callable[[], int] = lambda: 0
        self._before = 0

    @override
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = self.handled()

    @override
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.each.append(self.handled() - self._before)


async def test_one_that_is_always_ready_does_not_keep_the_others_from_their_turn(
    poller: Poller, make: Make
) -> None:
    there = [make(lambda _: None) for _ in range(2 * READY_SLICE)]  # never read: ready for ever
    for holder in there:
        poller.add(holder.sock, holder)
        holder.peer.send(b"x")
    for _ in range(200):
        await trio.lowlevel.checkpoint()
    turns = [len(holder.told) for holder in there]

    assert min(turns) > 0
    assert max(turns) - min(turns) <= 1


async def test_what_comes_and_goes_leaves_nothing_behind(poller: Poller, make: Make) -> None:
    for _ in range(200):
        holder = make()
        poller.add(holder.sock, holder)
        holder.peer.close()
        await trio.lowlevel.checkpoint()
        poller.remove(holder.sock)
        holder.close()

    assert {} == poller._polled
