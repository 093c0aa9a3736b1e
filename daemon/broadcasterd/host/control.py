"""The socket by which `broadcasterd reload` asks for a reload, and is told what became of it.

It is in the service's runtime directory, and its user's and root's alone. A connection is a
request: `reload` and a line break. The answer is one JSON object; without one, the daemon is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import trio

REQUEST = b"reload\n"

REQUEST_S = 5.0
"""The time for a request, which is one packet."""

SOCKET_NAME = "control"


class Answer(msgspec.Struct):
    """What became of a reload: why it was refused, or nothing."""

    refused: str


async def serve_control(
    directory: Path,
    reload: Callable[[], Awaitable[str]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests, until cancelled.

    Args:
        directory: the service's own.
        reload: reloads; returns what was wrong, or nothing.
        task_status: told once it listens.

    Raises:
        OSError: there can be no socket.

    """
    path = directory / SOCKET_NAME
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        os.fchmod(listening.fileno(), 0o600)  # as bind(2) makes it
        path.unlink(missing_ok=True)  # of a process that did not get to remove it
        await listening.bind(str(path))
        try:
            listening.listen()
            async with trio.open_nursery() as requests:
                task_status.started()
                while True:
                    connection, _ = await listening.accept()
                    requests.start_soon(_answer, trio.SocketStream(connection), reload)
        finally:
            path.unlink(missing_ok=True)


async def _answer(stream: trio.SocketStream, reload: Callable[[], Awaitable[str]]) -> None:
    async with stream:
        with suppress(trio.BrokenResourceError, trio.TooSlowError):
            with trio.fail_after(REQUEST_S):
                asked = await stream.receive_some(len(REQUEST))
            if asked == REQUEST:
                await stream.send_all(msgspec.json.encode(Answer(await reload())))


def ask_to_reload(directory: Path) -> str:
    """Ask the daemon of a runtime directory to reload; return what was wrong, or nothing.

    Raises:
        OSError: nobody answers.

    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(directory / SOCKET_NAME))
        connection.sendall(REQUEST)
        answer = b"".join(iter(partial(connection.recv, 4096), b""))
    try:
        return msgspec.json.decode(answer, type=Answer).refused
    except msgspec.DecodeError as error:
        raise OSError("the daemon ended before it answered") from error
