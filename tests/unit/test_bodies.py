"""Reading bodies: whole ones within their bounds, and what ends the wait for the next piece."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from broadcasterd.access.grants import EVERYONE, Grant
from broadcasterd.api.bodies import ClientDisconnected, next_piece, whole_body
from broadcasterd.api.request import Head
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.hub import Hub
from broadcasterd.config import Limits
from broadcasterd.errors import Draining, Problem, ShortOfMemory, TooLarge, TooSlow
from tests.support.broadcast import in_force, make_hub
from tests.support.following import Pieces

MOST = 10
TIMEOUT_S = 30.0


@pytest.fixture
def hub() -> Hub:
    """Return a hub that does not run."""
    return make_hub(in_force(Limits(body_timeout=TIMEOUT_S)))


def body(*pieces: bytes, then: Exception | None = None) -> Pieces:
    """Return a body of these pieces, and what is raised after them."""
    rest = iter(pieces)

    async def take() -> bytes | None:
        await trio.lowlevel.checkpoint()
        if (piece := next(rest, None)) is None and then is not None:
            raise then
        return piece

    return Pieces(take)


def endless() -> Pieces:
    """Return a body that never goes on."""

    async def take() -> bytes | None:
        await trio.sleep_forever()
        raise AssertionError

    return Pieces(take)


async def read(hub: Hub, pieces: Pieces, *, length: str = "", grant: Grant = EVERYONE) -> bytes:
    """Read a body whole."""
    fields = {"content-length": length} if length else {}
    head = Head("POST", "/", (), fields, "127.0.0.1", "1.1")
    with hub.bodies.holding() as held:
        return await whole_body(pieces, head, grant=grant, hub=hub, max_body_bytes=MOST, held=held)


@pytest.mark.parametrize("pieces", [(), (b"ab",), (b"a", b"b", b"c"), (b"x" * MOST,)])
async def test_a_body_is_joined_of_its_pieces(hub: Hub, pieces: tuple[bytes, ...]) -> None:
    assert b"".join(pieces) == await read(hub, body(*pieces))


@pytest.mark.parametrize("pieces", [(b"x" * (MOST + 1),), (b"x" * MOST, b"y")])
async def test_one_that_grows_too_large_is_refused(hub: Hub, pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(TooLarge, match="max_body_bytes"):
        await read(hub, body(*pieces))


@pytest.mark.parametrize("length", [str(MOST + 1), "9" * 30])
async def test_one_that_says_so_is_refused_before_it_is_read(hub: Hub, length: str) -> None:
    with pytest.raises(TooLarge):
        await read(hub, endless(), length=length)


async def test_what_is_held_is_counted_until_it_is_read(hub: Hub) -> None:
    counted: list[int] = []

    async def take() -> bytes | None:
        counted.append(hub.bodies.bytes)
        return b"abc" if len(counted) < 3 else None

    await read(hub, Pieces(take))

    assert [0, 3, 6] == counted
    assert 0 == hub.bodies.bytes


async def test_one_that_takes_too_long_is_given_up(
    hub: Hub, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    with pytest.raises(TooSlow, match="body_timeout"):
        await read(hub, endless())

    assert TIMEOUT_S == pytest.approx(trio.current_time() - began)


async def test_one_whose_client_goes_away_is_over(hub: Hub) -> None:
    with pytest.raises(ClientDisconnected):
        await read(hub, body(b"ab", then=ClientDisconnected()))

    assert 0 == hub.bodies.bytes


@pytest.mark.parametrize(
    ("happens", "refusal"),
    [
        (lambda hub: hub.interrupts.drain(), Draining),
        (lambda hub: hub.interrupts.short_of_memory(), ShortOfMemory),
        (lambda hub: hub.interrupts.revoke({"me"}), Problem),
    ],
    ids=["drain", "memory", "revoked"],
)
async def test_a_wait_ends_when_something_else_is_over(
    hub: Hub, happens: Callable[[Hub], None], refusal: type[Problem], nursery: trio.Nursery
) -> None:
    async def soon() -> None:
        await trio.testing.wait_all_tasks_blocked()
        happens(hub)

    nursery.start_soon(soon)
    with trio.fail_after(10), pytest.raises(refusal) as refused:
        await read(hub, endless(), grant=Grant("me"))

    assert refused.value.status in {401, 503}


async def test_pieces_that_never_have_to_be_waited_for_do_not_outlive_a_grant() -> None:
    hub = make_hub(clock=Clock(wall=lambda: 1000.0))
    pieces = aiter(body(b"a", b"b"))
    with pytest.raises(Problem) as refused:
        await next_piece(pieces, Grant(expires_at=999.0), hub, 1e9, TooSlow("x"))

    assert 401 == refused.value.status
