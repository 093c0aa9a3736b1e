"""The loop over thousands of items: each is acted on, and other tasks run in between."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from broadcasterd.broadcast.slices import SLICE, for_each


@pytest.mark.parametrize("count", [0, 1, SLICE, 2 * SLICE + 1])
async def test_each_is_acted_on_once_and_in_order(count: int) -> None:
    seen: list[int] = []
    await for_each(range(count), seen.append)

    assert list(range(count)) == seen


async def test_others_run_after_each_slice() -> None:
    done: list[int] = []
    found: list[int] = []

    async def look() -> None:
        while True:
            found.append(len(done))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await for_each(range(25), done.append, slice_=10)
        nursery.cancel_scope.cancel()

    assert {10, 20} & set(found)


async def test_what_the_action_raises_goes_up() -> None:
    def fail(_: int) -> None:
        raise ValueError("injected")

    with pytest.raises(ValueError, match="injected"):
        await for_each(range(3), fail)
