"""The proof against deadlocks, held to the source: each wait, and that no cycle can close.

Every ``await``, ``async for`` and ``async with`` of ``broadcast/`` and ``memory/`` is found in the
syntax tree. A wait that is new, or gone, has to be looked at: it fails here until the table says
what it waits for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import broadcasterd

ROOT = Path(broadcasterd.__file__).parent
FILES = [*ROOT.glob("broadcast/*.py"), *ROOT.glob("memory/*.py")]

PASSING = {
    "trio.lowlevel.checkpoint()",
    "trio.lowlevel.checkpoint_if_cancelled()",
    "trio.lowlevel.cancel_shielded_checkpoint()",
}
"""No wait: they end whatever anybody does."""

ANSWERS = {
    "session.py: self._inbox.send(publication)": ("publisher", "session"),
    "inbox.py: trio.lowlevel.wait_task_rescheduled(give_up)": ("publisher", "session"),
    "session.py: publication.wait()": ("publisher", "session"),
    "session.py: self._emptied.wait()": ("session", "subscriber"),
    "subscribers.py: self._drained.wait()": ("drain", "session"),
    "keeping.py: self.engine.append(*what)": ("session", "engine's writer"),
    "hub.py: self.engine.settled()": ("publisher", "engine's writer"),
    "take_up.py: hub.engine.load(taking)": ("start", "engine's writer"),
    "take_up.py: engine.settled()": ("start", "engine's writer"),
    "hub.py: self.engine.end(name)": ("publisher", "engine's writer"),
    "shared_session.py: attempt.done.wait()": ("publisher", "session"),
    "shared_session.py: self._news.wait()": ("publisher", "session"),
    "shared_session.py: self._engine.follow(self)": ("session", "engine's writer"),
}
"""Waits for what somebody has to do first: who waits, and for whom."""

WORK = {
    "session.py: self._inbox.wait()",
    "response_subscriber.py: self._bell.receive()",
    "pressure.py: self._bell.receive()",
    "poller.py: trio.lowlevel.wait_readable(self._epoll.fileno())",
}
"""Waits for something to do, by a task that nobody waits for meanwhile: it owes nothing."""

HELD = {
    "hub.py: async with trio.open_nursery()",
    "take_up.py: async with trio.open_nursery()",
}
"""What is held while something is waited for: children, and nothing else."""


def waits(source: str) -> Iterator[str]:
    """Yield what a source waits for, beside the coroutines that are the package's own."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Await(value):
                if not _is_own(value):
                    yield ast.unparse(value)
            case ast.AsyncFor(iter=source_of):
                yield f"async for {ast.unparse(source_of)}"
            case ast.AsyncWith(items=items):
                yield from (f"async with {ast.unparse(item.context_expr)}" for item in items)


def _defined() -> set[str]:
    trees = [ast.parse(path.read_text()) for path in FILES]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)}


OWN = _defined() - {"send", "receive", "wait"}


def _is_own(value: ast.expr) -> bool:
    match value:
        case ast.Call(func=ast.Name(name) | ast.Attribute(attr=name)):
            return name in OWN
    return False


def found() -> set[str]:
    """Return every wait in the package, with its file."""
    return {
        f"{path.name}: {what}"
        for path in FILES
        for what in waits(path.read_text())
        if what not in PASSING
    }


def test_every_wait_is_known_and_every_known_one_is_there() -> None:
    assert set(ANSWERS) | WORK | HELD == found()


def test_no_cycle_can_close() -> None:
    graph = TopologicalSorter[str]()
    for waiter, for_whom in ANSWERS.values():
        graph.add(waiter, for_whom)

    graph.prepare()  # raises for a cycle


def test_nothing_is_held_over_a_wait_but_nurseries() -> None:
    assert {what.partition(": ")[2] for what in HELD} == {"async with trio.open_nursery()"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def f():\n    await other.publish_elsewhere()", ["other.publish_elsewhere()"]),
        ("async def f():\n    await self._inbox.send(1)", ["self._inbox.send(1)"]),
        ("async def f():\n    await event", ["event"]),
        (
            "async def f():\n    async with session.owned():\n        x",
            ["async with session.owned()"],
        ),
        ("async def f():\n    async for x in log: x", ["async for log"]),
        ("async def f():\n    await hub.heartbeat()", []),
    ],
)
def test_the_checker_sees(source: str, expected: list[str]) -> None:
    assert list(waits(source)) == expected


def test_a_cycle_would_be_seen() -> None:
    graph = TopologicalSorter({"session": {"subscriber"}, "subscriber": {"session"}})

    with pytest.raises(CycleError):
        graph.prepare()
