"""Imports run one way, there is no lock, and a few things happen in one place only.

Which package may import which stands in pyproject.toml, as contracts of import-linter. All else is
read from the syntax tree of every source file. Both checkers are checked on bad snippets.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import broadcasterd
from tests.support.tools import require

ROOT = Path(broadcasterd.__file__).parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
PYPROJECT = ROOT.parent.parent / "pyproject.toml"

BANNED = {
    **dict.fromkeys(
        (
            *("trio.Lock", "trio.StrictFIFOLock", "trio.Semaphore", "trio.Condition"),
            *("trio.CapacityLimiter", "anyio", "threading", "_thread", "queue", "selectors"),
        ),
        "state has one owner, and no lock",
    ),
    **dict.fromkeys(
        ("trio.to_thread", "trio.from_thread", "concurrent", "logging.handlers.QueueListener"),
        "no thread touches state",
    ),
    "asyncio": "one Trio run owns everything",
    "multiprocessing": "it is one process",
}
"""What blocks, or hands state to a thread."""

EXCEPTIONS = {
    ("observe/log.py", "queue"): (
        "a record is written by the listener's thread: a disk or a journald that stalls does not"
        " stall the loop. What crosses is a record that nobody changes, and a full queue drops"
    ),
    ("observe/log.py", "logging.handlers.QueueListener"): "that thread",
    ("engine/worker.py", "threading"): (
        "a disk is waited for by one thread, which has the file to itself: the loop hands it"
        " finished calls, and takes nothing of theirs up before their outcome is there"
    ),
    ("engine/worker.py", "queue"): "the calls, on their way to that thread; the loop only puts in",
    ("client/exchange.py", "anyio"): "it waits in the event loop of the program that it is in",
    ("client/async_client.py", "anyio"): "the same",
    ("server/http2.py", "self.send_lock"): (
        "Hypercorn's own: of HTTP/2, many streams write to one connection. It is held over one"
        " write, which has a deadline, and by nobody who waits for anything else"
    ),
}
"""All there are, each with its reason."""


def violations(source: str, file: str) -> list[str]:
    """Return which of the rules a source file breaks, each as ``line: what``."""
    nodes = tuple(ast.walk(ast.parse(source)))
    return [f"{line}: {what}" for line, what in sorted(_found(nodes, file))]


def _found(nodes: Sequence[ast.AST], file: str) -> Iterator[tuple[int, str]]:
    for line, name in _imports(nodes, file):
        if (banned := _banned(name)) and (file, banned) not in EXCEPTIONS:
            yield line, f"imports {name}: {BANNED[banned]}"
    names = _names_of_modules(nodes, file)
    imported = {name.partition(".")[0] for name in names.values()}
    for node in nodes:
        match node:
            case ast.Attribute() | ast.Name():
                used = _dotted(node, names)
                if used.partition(".")[0] in imported:
                    yield from _if_banned(node, used, file)
                yield from _used(node, used, file)
            case ast.Call(func=ast.Call(func=ast.Name("type"))):
                yield node.lineno, "calls the type of something: what that makes is not seen here"
            case ast.TryStar() if file != "daemon.py":
                yield node.lineno, "has except*: groups are taken apart at the root, in daemon.py"


def _if_banned(node: ast.expr, used: str, file: str) -> Iterator[tuple[int, str]]:
    if (banned := _banned(used)) and (file, banned) not in EXCEPTIONS:
        yield node.lineno, f"uses {used}: {BANNED[banned]}"


def _used(node: ast.expr, used: str, file: str) -> Iterator[tuple[int, str]]:
    if re.search(r"\b_?([a-z]+_)*lock$", used) and "." in used and (file, used) not in EXCEPTIONS:
        yield node.lineno, f"uses {used}: state has one owner, and no lock"
    if not file.startswith("cli/") and used in {"sys.exit", "SystemExit", "exit", "quit"}:
        yield node.lineno, f"uses {used}: only cli/ decides the exit status"
    if not file.startswith("cli/") and used == "print":
        yield node.lineno, "uses print: only cli/ writes to the terminal"


def _banned(name: str) -> str | None:
    """Return which banned name this is, or is within."""
    return next((each for each in BANNED if f"{name}.".startswith(f"{each}.")), None)


def _imports(nodes: Sequence[ast.AST], file: str) -> Iterator[tuple[int, str]]:
    """Yield each import, ``from a import b`` as ``a.b``: whether b is a module is not ours."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{_origin(node, file)}.{alias.name}"


def _origin(node: ast.ImportFrom, file: str) -> str:
    if not node.level:
        return node.module or ""
    package = ["broadcasterd", *file.split("/")[:-1]]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def _names_of_modules(nodes: Sequence[ast.AST], file: str) -> dict[str, str]:
    """Return what each imported name stands for."""
    names = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{_origin(node, file)}.{alias.name}"
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return ``a.b.c`` in full, or nothing where it hangs on something that is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value, names)):
        return f"{owner}.{node.attr}"
    return ""


# --- locks, threads, and what happens in one place only --------------------------------------


def test_the_source_is_found() -> None:
    assert {"core/wire.py", "core/replaylog.py", "errors.py", "server/serve.py"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_the_source_keeps_the_rules(file: str) -> None:
    assert violations((ROOT / file).read_text(), file) == []


@pytest.mark.parametrize(("file", "name"), EXCEPTIONS)
def test_every_exception_is_needed(file: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(EXCEPTIONS, (file, name))

    assert violations((ROOT / file).read_text(), file)


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("broadcast/hub.py", "import trio\nlock = trio.Lock()", "2: uses trio.Lock"),
        ("broadcast/hub.py", "import trio as t\nt.StrictFIFOLock()", "uses trio.StrictFIFOLock"),
        ("broadcast/hub.py", "from trio import Semaphore", "imports trio.Semaphore"),
        ("broadcast/hub.py", "async with self.send_lock: x", "uses self.send_lock"),
        ("broadcast/hub.py", "self.mutex = type(other.mutex)()", "calls the type of something"),
        ("broadcast/hub.py", "import queue", "imports queue: state has one owner"),
        ("broadcast/hub.py", "from queue import Queue\nQueue()", "imports queue.Queue"),
        ("core/wire.py", "from concurrent.futures import ThreadPoolExecutor", "no thread"),
        ("api/publish.py", "import trio\ntrio.to_thread.run_sync(f)", "uses trio.to_thread"),
        ("api/publish.py", "from trio import to_thread", "imports trio.to_thread"),
        ("server/app.py", "import trio\nx: trio.Condition", "uses trio.Condition"),
        ("server/app.py", "import trio\nmake = trio.CapacityLimiter", "uses trio.CapacityLimiter"),
        ("server/app.py", "from trio import Lock as L\nL()", "uses trio.Lock"),
        ("server/app.py", "import threading", "imports threading"),
        ("core/wire.py", "from threading import Thread", "imports threading.Thread"),
        ("host/memory.py", "import threading\nthreading.get_ident()", "uses threading.get_ident"),
        ("host/memory.py", "import asyncio", "one Trio run"),
        ("host/memory.py", "from asyncio import Queue", "one Trio run"),
        ("host/memory.py", "from multiprocessing import Lock", "it is one process"),
        ("observe/log.py", "import threading", "imports threading"),
        ("daemon.py", "import sys\nsys.exit(1)", "uses sys.exit"),
        ("daemon.py", "from sys import exit as leave\nleave(1)", "uses sys.exit"),
        ("__main__.py", "raise SystemExit(1)", "uses SystemExit"),
        ("daemon.py", "quit()", "uses quit"),
        ("daemon.py", "print('x')", "uses print"),
        ("daemon.py", "list(map(print, []))", "uses print"),
        ("server/app.py", "try:\n    x\nexcept* OSError:\n    pass", "has except*"),
    ],
)
def test_the_checker_sees(file: str, source: str, expected: str) -> None:
    found = violations(source, file)

    assert any(expected in violation for violation in found), found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("broadcast/hub.py", "import trio\ntrio.Event()\ntrio.open_memory_channel(1)"),
        ("broadcast/hub.py", "class Lock: ...\nself.Lock = Lock()\nblueprint.print()"),
        ("broadcast/hub.py", "def lock(): ...\nqueued = queue_of(x)\ntype(x)"),
        ("daemon.py", "try:\n    x\nexcept* OSError:\n    pass"),
        ("cli/__init__.py", "import sys\nprint(1)\nsys.exit(1)\nraise SystemExit(2)"),
        ("observe/log.py", "import queue\nqueue.Queue(1)"),
    ],
)
def test_the_checker_lets_pass(file: str, source: str) -> None:
    assert violations(source, file) == []


# --- who imports whom ------------------------------------------------------------------------

BREACHES = {
    "Imports run one way": ("broadcast/hub.py", "from broadcasterd.api import publish"),
    "No circles": ("broadcast/subscriber.py", "from broadcasterd.broadcast import session"),
    "A session knows the port": (
        "broadcast/hub.py",
        "from broadcasterd.engine import sqlite",
    ),
    "What an event is": ("core/wire.py", "from broadcasterd.access import grants"),
    "Memory and access": ("memory/policy.py", "from broadcasterd.core import event"),
    "The bound does not ask who": ("memory/policy.py", "from broadcasterd.access import grants"),
    "The host and the log": ("broadcast/hub.py", "from broadcasterd.host import memory"),
    "Pure": ("core/wire.py", "import trio"),
    "Only the server": ("api/routes.py", "import quart"),
}
"""For each contract, by how it begins: a line in a file that breaks it."""


def _check_imports(source_root: Path) -> tuple[int, str]:
    """Run the contracts on the package in a directory; return the exit status and the report."""
    done = subprocess.run(
        [require(".venv-tools/bin/lint-imports"), PYPROJECT, "--no-cache", "--no-logo"],
        env={**os.environ, "PYTHONPATH": str(source_root), "COLUMNS": "200"},
        cwd=source_root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_imports_keep_the_contracts() -> None:
    status, report = _check_imports(ROOT.parent)

    assert status == 0, report


def test_each_contract_can_be_broken(tmp_path: Path) -> None:
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT, tmp_path / "broadcasterd", ignore=compiled)
    for file, line in BREACHES.values():
        with (tmp_path / "broadcasterd" / file).open("a") as source:
            source.write(f"\n{line}\n")
    status, report = _check_imports(tmp_path)
    broken = set(re.findall(r"^(.*) BROKEN", report, re.MULTILINE))
    kept = set(re.findall(r"^(.*) KEPT", report, re.MULTILINE))

    assert status == 1
    assert not kept, report
    assert len(broken) == len(BREACHES)
    assert all(any(name.startswith(start) for name in broken) for start in BREACHES), report
