"""The socket that asks for a reload: each request gets its own answer."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from broadcasterd.host.control import SOCKET_NAME, ask_to_reload, serve_control
from broadcasterd.reload import Reloads


@asynccontextmanager
async def controlled(directory: Path, outcomes: list[str]) -> AsyncIterator[Reloads]:
    """Serve the socket; reloads have these outcomes, one after the other."""

    async def reload() -> str:
        await trio.lowlevel.checkpoint()
        return outcomes.pop(0)

    reloads = Reloads(reload)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloads.run)
        await nursery.start(serve_control, directory, reloads.ask)
        yield reloads
        nursery.cancel_scope.cancel()


async def ask(directory: Path) -> str:
    """Ask as the command does, in a thread: it waits for the answer."""
    return await trio.to_thread.run_sync(ask_to_reload, directory)


async def test_each_request_gets_its_own_outcome(tmp_path: Path) -> None:
    outcomes = ['no: "this"\nand that', "", "no", ""]
    expected = outcomes.copy()
    async with controlled(tmp_path, outcomes) as reloads:
        assert expected == [
            await ask(tmp_path),
            await reloads.ask(),
            await ask(tmp_path),
            await ask(tmp_path),
        ]


async def test_many_at_once_are_done_one_after_the_other(tmp_path: Path) -> None:
    answers: list[str] = []
    under_way = 0

    async def reload() -> str:
        nonlocal under_way
        under_way += 1
        assert 1 == under_way
        await trio.lowlevel.checkpoint()
        under_way -= 1
        return ""

    reloads = Reloads(reload)

    async def one() -> None:
        answers.append(await reloads.ask())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloads.run)
        async with trio.open_nursery() as asking:
            for _ in range(5):
                asking.start_soon(one)
        nursery.cancel_scope.cancel()

    assert [""] * 5 == answers


async def test_it_is_for_the_user_of_the_service_and_gone_with_it(tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).touch()  # of a process that was killed
    async with controlled(tmp_path, []):
        assert 0o600 == stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode)

    assert not (tmp_path / SOCKET_NAME).exists()
    with pytest.raises(OSError, match="No such file"):
        ask_to_reload(tmp_path)


@pytest.mark.parametrize("sent", [b"", b"reboot\n"])
async def test_what_is_no_request_reloads_nothing(tmp_path: Path, sent: bytes) -> None:
    async with controlled(tmp_path, [""]):
        stream = await trio.open_unix_socket(tmp_path / SOCKET_NAME)
        async with stream:
            await stream.send_all(sent)
            await stream.send_eof()

            assert b"" == await stream.receive_some()

        assert "" == await ask(tmp_path), "it was not used up"


async def test_who_says_nothing_is_not_waited_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with controlled(tmp_path, []):
        stream = await trio.open_unix_socket(tmp_path / SOCKET_NAME)
        async with stream:
            assert b"" == await stream.receive_some()


def test_a_daemon_that_ends_before_it_answers_is_no_outcome(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / SOCKET_NAME))
    listening.listen()

    def hang_up() -> None:
        listening.accept()[0].close()

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hang_up)
            with pytest.raises(OSError, match=r"ended before it answered|reset|Broken"):
                await ask(tmp_path)

    with listening:
        trio.run(both)
