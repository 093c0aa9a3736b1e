"""The inbox of a session: bounded, in order, and fair to those that wait."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from broadcasterd.broadcast.inbox import Inbox, InboxStatistics


async def taken(inbox: Inbox[int]) -> list[int]:
    """Take messages until there will be none."""
    found = []
    try:
        while True:
            await inbox.wait()
            found.append(inbox.receive_nowait())
    except trio.EndOfChannel:
        return found


async def test_messages_are_taken_in_order() -> None:
    inbox = Inbox[int](3)
    for number in range(3):
        inbox.send_nowait(number)
    inbox.close()

    assert [0, 1, 2] == await taken(inbox)


async def test_beyond_its_size_it_takes_no_message_at_once() -> None:
    inbox = Inbox[int](2)
    inbox.send_nowait(0)
    inbox.send_nowait(1)

    with pytest.raises(trio.WouldBlock):
        inbox.send_nowait(2)
    assert InboxStatistics(2, 0) == inbox.statistics()


async def test_an_empty_one_has_no_message() -> None:
    with pytest.raises(trio.WouldBlock):
        Inbox[int](1).receive_nowait()


async def test_a_receiver_waits_for_a_message_and_for_the_end() -> None:
    inbox = Inbox[int](1)
    found: list[list[int]] = []

    async def receive() -> None:
        found.append(await taken(inbox))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        inbox.send_nowait(1)
        await trio.testing.wait_all_tasks_blocked()
        await inbox.send(2)
        await trio.testing.wait_all_tasks_blocked()
        inbox.close()

    assert [[1, 2]] == found


async def test_senders_wait_for_room_and_who_came_first_is_first() -> None:
    inbox = Inbox[int](1)
    found = []
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(inbox.send, number)
            await trio.testing.wait_all_tasks_blocked()
        assert InboxStatistics(1, 3) == inbox.statistics()
        for _ in range(3):
            found.append(inbox.receive_nowait())
            with pytest.raises(trio.WouldBlock):  # who waits is before who comes
                inbox.send_nowait(9)
        found.append(inbox.receive_nowait())

    assert [0, 1, 2, 3] == found


async def test_a_sender_that_gives_up_leaves_no_message() -> None:
    inbox = Inbox[int](1)
    inbox.send_nowait(0)
    with trio.move_on_after(0):
        await inbox.send(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.send, 2)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    inbox.close()

    assert [0] == await taken(inbox)


async def test_a_receiver_that_gives_up_takes_no_message() -> None:
    inbox = Inbox[int](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taken, inbox)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    inbox.send_nowait(1)
    inbox.close()

    assert [1] == await taken(inbox)


async def test_a_closed_one_refuses_those_that_wait_and_all_others() -> None:
    inbox = Inbox[int](1)
    inbox.send_nowait(0)
    refused = []

    async def send(number: int) -> None:
        try:
            await inbox.send(number)
        except trio.ClosedResourceError:
            refused.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, 1)
        nursery.start_soon(send, 2)
        await trio.testing.wait_all_tasks_blocked()
        inbox.close()
    with pytest.raises(trio.ClosedResourceError):
        inbox.send_nowait(3)

    assert [1, 2] == sorted(refused)
    assert [0] == await taken(inbox)
