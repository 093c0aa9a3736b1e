"""Places for connections: counted exactly, limited, and refusals recorded once a minute."""

from __future__ import annotations

from resource import RLIM_INFINITY

import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.config import Limits
from broadcasterd.memory.account import Account
from broadcasterd.memory.holdings import CONNECTION_BYTES
from broadcasterd.server import connection_limits
from broadcasterd.server.connection_limits import RESERVED_DESCRIPTORS, ConnectionLimits, Place
from tests.support.broadcast import in_force

Records = list[structlog.typing.EventDict]


def places_of(
    *,
    max_connections: int = 1000,
    max_connections_per_address: int = 1000,
    trusted_proxies: tuple[str, ...] = (),
) -> ConnectionLimits:
    """Return places whose clock stands still."""
    limits = Limits(
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        trusted_proxies=trusted_proxies,
    )
    return ConnectionLimits(in_force(limits), clock=lambda: 0.0)


def taken(room: ConnectionLimits, address: str) -> Place:
    place = room.take(address)
    assert place is not None
    return place


def test_there_are_so_many_places() -> None:
    room = places_of(max_connections=2)
    first, _ = taken(room, "a"), taken(room, "b")

    assert room.take("c") is None
    first.give_back()
    assert room.take("c") is not None
    assert room.take("d") is None
    assert {"limits.max_connections": 2} == room.refused


def test_a_client_has_so_many_places() -> None:
    room = places_of(max_connections_per_address=1)
    first = taken(room, "192.0.2.1")

    assert room.take("192.0.2.1") is None
    assert room.take("192.0.2.2") is not None
    first.give_back()
    assert room.take("192.0.2.1") is not None
    assert {"limits.max_connections_per_address": 1} == room.refused


def test_a_network_of_ipv6_is_one_client() -> None:
    room = places_of(max_connections_per_address=1)
    taken(room, "2001:db8:1:2::1")

    assert room.take("2001:db8:1:2:ffff::2") is None
    assert room.take("2001:db8:1:3::1") is not None


def test_a_trusted_proxy_has_as_many_places_as_there_are() -> None:
    proxies = ("10.0.0.0/8",)
    room = places_of(max_connections=3, max_connections_per_address=1, trusted_proxies=proxies)
    for _ in range(3):
        taken(room, "10.1.2.3")

    assert room.take("10.1.2.3") is None


def test_a_place_is_given_back_once() -> None:
    room = places_of(max_connections_per_address=2)
    place = taken(room, "a")
    taken(room, "a")
    place.give_back()
    place.give_back()

    assert 1 == room.taken
    taken(room, "a")
    assert room.take("a") is None


async def test_refusals_are_recorded_once_a_minute_for_each_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with structlog.testing.capture_logs() as records:
        room = ConnectionLimits(in_force(Limits(max_connections_per_address=1)))
        for client in ("a", "b"):
            taken(room, client)
            for _ in range(100):
                assert room.take(client) is None
        assert 2 == len(records)
        await trio.sleep(60)
        assert room.take("a") is None

    assert ["a", "b", "a"] == [record["peer"] for record in records]
    assert [1, 101, 201] == [record["refused"] for record in records]
    assert {"limits.max_connections_per_address"} == {record["limit"] for record in records}


def test_the_record_of_a_refusal_has_the_address_as_people_write_it() -> None:
    room = places_of(max_connections=0)
    with structlog.testing.capture_logs() as records:
        room.take("::ffff:192.0.2.7")

    assert ["192.0.2.7"] == [record["peer"] for record in records]


async def test_refusals_for_want_of_any_place_are_recorded_once_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with structlog.testing.capture_logs() as records:
        room = ConnectionLimits(in_force(Limits(max_connections=1)))
        taken(room, "a")
        for number in range(100):
            assert room.take(f"192.0.2.{number}") is None

    assert ["limits.max_connections"] == [record["limit"] for record in records]


async def test_failures_to_accept_are_recorded_once_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with structlog.testing.capture_logs() as records:
        room = ConnectionLimits(in_force(Limits()))
        for _ in range(599):
            room.accept_failed(OSError(24, "Too many open files"))
            await trio.sleep(0.1)
        assert 1 == len(records)
        await trio.sleep(0.1)
        room.accept_failed(OSError(24, "Too many open files"))

    assert ["Too many open files"] * 2 == [record["error"] for record in records]
    assert {"accept": 600} == room.refused


class Descriptors:
    """Stands in for the limits of the process."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def get(self, _: int) -> tuple[int, int]:
        return self.limits

    def set(self, _: int, limits: tuple[int, int]) -> None:
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "room_for"),
    [
        (1024, 1_000_000, 2000 + RESERVED_DESCRIPTORS, 2000),
        (1024, RLIM_INFINITY, 2000 + RESERVED_DESCRIPTORS, 2000),
        (1024, 1500, 1500, 1500 - RESERVED_DESCRIPTORS),
        (1500, 1500, 1500, 1500 - RESERVED_DESCRIPTORS),
        (40, 40, 40, 1),
        (RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY, 2000),
        (5000, 5000, 5000, 2000),
    ],
)
def test_there_are_no_more_places_than_descriptors(
    soft: int, hard: int, raised: int, room_for: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Descriptors(soft, hard)
    monkeypatch.setattr(connection_limits, "getrlimit", process.get)
    monkeypatch.setattr(connection_limits, "setrlimit", process.set)
    room = places_of(max_connections=2000)
    with structlog.testing.capture_logs() as records:
        room.fit_descriptors()
    found = 0
    while room.take(f"{found}") is not None:
        found += 1

    assert room_for == found
    assert (room_for < 2000) == any("open_files" in record for record in records)
    assert process.limits == (raised, hard)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_no_order_of_coming_and_going_loses_a_place(run: list[tuple[str, bool]]) -> None:
    room = places_of(max_connections=7, max_connections_per_address=3)
    inside: dict[str, list[Place]] = {"a": [], "b": [], "c": []}
    for client, comes in run:
        if not comes and inside[client]:
            inside[client].pop().give_back()
        elif comes:
            place = room.take(client)
            count = sum(map(len, inside.values()))
            assert (place is not None) == (count < 7 and len(inside[client]) < 3)
            if place is not None:
                inside[client].append(place)
        assert sum(map(len, inside.values())) == room.taken


def test_a_place_counts_what_its_connection_holds_until_it_is_given_back() -> None:
    account = Account()
    room = ConnectionLimits(in_force(Limits()), account, clock=lambda: 0.0)
    place = taken(room, "a")
    place.take(1000)

    assert CONNECTION_BYTES + 1000 == account.bytes
    place.give_back()
    place.take(-1000)  # whoever is still busy with its end
    assert 0 == account.bytes


def test_there_is_no_place_while_clients_take_all_the_memory_that_they_may() -> None:
    crowded = True
    room = ConnectionLimits(in_force(Limits()), is_crowded=lambda: crowded, clock=lambda: 0.0)

    assert room.take("a") is None
    assert {"memory.critical_mb": 1} == room.refused
    crowded = False
    assert room.take("a") is not None
