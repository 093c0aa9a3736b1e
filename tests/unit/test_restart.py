"""The arrangement of a restart: a handover waits where the service manager allows it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from broadcasterd.handover.descriptor_store import PARCEL
from broadcasterd.handover.format import SEGMENT_BYTES
from broadcasterd.handover.restart import SPARE_DESCRIPTORS, Restart
from broadcasterd.host.systemd import HandedOver, Notifier
from tests.support.broadcast import Arrivals, attach, drafts, retained, start_hub


def restart(environ: Mapping[str, str], *handed: HandedOver) -> Restart:
    """Return the arrangement in an environment; nobody listens at its notification socket."""
    return Restart(handed, Notifier(environ.get("NOTIFY_SOCKET")), environ)


@pytest.mark.parametrize(
    ("environ", "keeps"),
    [
        ({}, False),
        ({"FDSTORE": "100"}, False),
        ({"NOTIFY_SOCKET": "/x"}, False),
        ({"NOTIFY_SOCKET": "/x", "FDSTORE": "0"}, False),
        ({"NOTIFY_SOCKET": "/x", "FDSTORE": ""}, False),
        ({"RUNTIME_DIRECTORY": "/x"}, False),
        ({"NOTIFY_SOCKET": "/x", "FDSTORE": str(SPARE_DESCRIPTORS - 1)}, False),
        ({"NOTIFY_SOCKET": "/x", "FDSTORE": str(SPARE_DESCRIPTORS)}, True),
    ],
)
async def test_streams_are_kept_in_a_descriptor_store_alone(
    environ: dict[str, str],
    keeps: bool,  # noqa: FBT001 (a column of the table)
    nursery: trio.Nursery,
) -> None:
    assert restart(environ).keeps_streams(await start_hub(nursery)) is keeps


async def test_streams_are_not_kept_where_there_is_no_room_for_their_logs(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery)
    arrangement = restart({"NOTIFY_SOCKET": "/x", "FDSTORE": str(SPARE_DESCRIPTORS + 10)})
    hub.logs.bytes = 10 * SEGMENT_BYTES

    assert arrangement.keeps_streams(hub)

    hub.logs.bytes += SEGMENT_BYTES

    assert not arrangement.keeps_streams(hub)


async def test_without_a_store_the_logs_wait_in_the_runtime_directory(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    environ = {"RUNTIME_DIRECTORY": f"{tmp_path}:/another"}
    before, after = await start_hub(nursery), await start_hub(nursery)
    await before.open("s").publish(drafts("a", "b"))
    with capture_logs() as records:
        await restart(environ).hand_over(before)
        await restart(environ).restore(after, Arrivals())
        await restart(environ).restore(after, Arrivals())

    assert ["a", "b"] == retained(after.find("s"))
    assert ["handed over", "handover taken up"] == [record["event"] for record in records]


async def test_alerts_that_fire_are_left_with_how_long_they_do(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
    before, after = await start_hub(nursery), await start_hub(nursery)
    await restart(environ).hand_over(before, alerts=[("memory_warning", 60.0)])
    [(name, seconds)] = await restart(environ).restore(after, Arrivals())

    assert "memory_warning" == name
    assert seconds >= 60
    assert [] == [*await restart(environ).restore(after, Arrivals())]


async def test_where_nothing_is_kept_nothing_is_left(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery)
    await hub.open("s").publish(drafts("a"))
    with capture_logs() as records:
        await restart({}).hand_over(hub)
        await restart({}).restore(hub, Arrivals())

    assert ["a"] == retained(hub.find("s"))
    assert [] == records


async def test_a_store_that_fails_is_recorded_and_the_daemon_can_end(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery)
    attach(hub.open("s"))
    with capture_logs() as records:
        await restart({"NOTIFY_SOCKET": "/nowhere/at/all", "FDSTORE": "100"}).hand_over(hub)
    await trio.testing.wait_all_tasks_blocked()

    assert ["handover failed"] == [record["event"] for record in records]
    assert {} == hub.subscribers.by_id


async def test_sockets_of_which_nothing_is_known_are_closed(nursery: trio.Nursery) -> None:
    theirs, ours = socket.socketpair()
    sender, parcel = socket.socketpair()
    socket.send_fds(sender, [b"."], [theirs.fileno()])
    theirs.close()
    sender.close()
    with ours:
        arrangement = restart({}, HandedOver(PARCEL, parcel.detach()), HandedOver("http", -1))
        await arrangement.restore(await start_hub(nursery), Arrivals())

        assert b"" == ours.recv(1)
    assert [HandedOver("http", -1)] == arrangement.others
