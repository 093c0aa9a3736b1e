"""Imports run one way, there is no lock, and a few things happen in one place only.

Read from the syntax tree of every source file; the checker is itself checked on bad snippets.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import broadcasterd

ROOT = Path(broadcasterd.__file__).parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))

ABOVE = {"broadcasterd." + name for name in ("cli", "daemon", "client", "api", "server")}
BACKENDS = {"broadcasterd.observe", "broadcasterd.host"}  # handed in, not imported
WEB = {"quart", "quart_trio", "hypercorn"}
CLOCKS_AND_IO = {"time", "os", "io", "socket", "ssl", "select", "subprocess", "logging", "random"}

LOCKS = {"Lock", "RLock", "StrictFIFOLock", "Semaphore", "BoundedSemaphore", "Condition"}
LOCKS |= {"CapacityLimiter", "Barrier", "allocate_lock"}
LOCKSMITHS = {"trio", "anyio", "threading", "_thread", "multiprocessing", "asyncio"}

THIRD_PARTY_OF_CORE = {"msgspec"}


def violations(source: str, file: str) -> list[str]:
    """Return which of the rules a source file breaks, each as ``line: what``."""
    tree = ast.parse(source)
    return [f"{line}: {what}" for line, what in sorted(_found(tree, file))]


def _found(tree: ast.Module, file: str) -> Iterator[tuple[int, str]]:
    for line, name in _imports(tree, file):
        if why := _why_not_imported(name, file):
            yield line, f"imports {name}: {why}"
    names = _names_of_modules(tree, file)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute() | ast.Name():
                used = _dotted(node, names)
                if _is_lock(used):
                    yield node.lineno, f"uses {used}: state has one owner, and no lock"
                if file != "cli.py" and used in {"sys.exit", "SystemExit", "exit", "quit"}:
                    yield node.lineno, f"uses {used}: only cli.py decides the exit status"
                if file != "cli.py" and used == "print":
                    yield node.lineno, "uses print: only cli.py writes to the terminal"
            case ast.TryStar() if file != "daemon.py":
                yield node.lineno, "has except*: groups are taken apart at the root, in daemon.py"


def _why_not_imported(name: str, file: str) -> str | None:
    layer = file.partition("/")[0].removesuffix(".py")
    if why := _why_in_no_layer_but(name, layer):
        return why
    if layer in {"core", "errors"}:
        return _why_not_pure(name, layer)
    if layer == "broadcast" and _within(name, ABOVE):
        return "it is above"
    if layer == "broadcast" and _within(name, BACKENDS):
        return "it is handed in"
    return None


def _why_in_no_layer_but(name: str, layer: str) -> str | None:
    top = name.partition(".")[0]
    if _is_lock(name):
        return "state has one owner, and no lock"
    if top == "asyncio":
        return "one Trio run owns everything"
    if top == "multiprocessing":
        return "it is one process"
    if top == "threading" and layer in {"core", "broadcast", "api", "server"}:
        return "no thread touches state"
    if top in WEB and layer not in {"server", "api"}:
        return "only server knows the web server and framework"
    return None


def _why_not_pure(name: str, layer: str) -> str | None:
    allowed = {"broadcasterd.errors", "broadcasterd.core.reasons"}
    if layer == "core":
        allowed |= {"broadcasterd.core", "broadcasterd.memory.account"}
    top = name.partition(".")[0]
    if _within(name, allowed):
        return None
    if top == "broadcasterd":
        return "it is above"
    if top in CLOCKS_AND_IO:
        return "core has no clock and does no I/O"
    if top not in sys.stdlib_module_names | THIRD_PARTY_OF_CORE:
        return "core needs nothing but the standard library and msgspec"
    return None


def _within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def _is_lock(name: str) -> bool:
    first, _, rest = name.partition(".")
    return first in LOCKSMITHS and rest.rpartition(".")[2] in LOCKS


def _imports(tree: ast.Module, file: str) -> Iterator[tuple[int, str]]:
    """Yield each import, ``from a import b`` as ``a.b``: whether b is a module is not ours."""
    for node in ast.walk(tree):
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


def _names_of_modules(tree: ast.Module, file: str) -> dict[str, str]:
    """Return what each imported name stands for."""
    names = {}
    for node in ast.walk(tree):
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


def test_the_source_is_found() -> None:
    assert {"core/wire.py", "core/replaylog.py", "errors.py", "core/reasons.py"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_the_source_keeps_the_rules(file: str) -> None:
    assert violations((ROOT / file).read_text(), file) == []


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("core/wire.py", "import trio", "imports trio"),
        ("core/wire.py", "import trio.lowlevel as low", "imports trio.lowlevel"),
        ("core/wire.py", "from trio import Event", "imports trio.Event"),
        ("core/wire.py", "import structlog", "imports structlog"),
        ("core/wire.py", "def f():\n    import quart", "imports quart"),
        ("core/wire.py", "if TYPE_CHECKING:\n    import quart", "imports quart"),
        ("core/wire.py", "import time", "no clock"),
        ("core/wire.py", "from time import monotonic", "no clock"),
        ("core/wire.py", "import socket", "no I/O"),
        ("core/wire.py", "from broadcasterd.broadcast.hub import Hub", "it is above"),
        ("core/wire.py", "from broadcasterd import broadcast", "it is above"),
        ("core/wire.py", "from .. import config", "imports broadcasterd.config"),
        ("core/wire.py", "from ..broadcast import hub", "imports broadcasterd.broadcast.hub"),
        ("core/wire.py", "from broadcasterd.observe.journal import x", "it is above"),
        ("errors.py", "from broadcasterd.core.event import Event", "it is above"),
        ("broadcast/hub.py", "from broadcasterd.server.app import x", "it is above"),
        ("broadcast/hub.py", "from broadcasterd import server", "it is above"),
        ("broadcast/hub.py", "import broadcasterd.daemon", "it is above"),
        ("broadcast/hub.py", "import quart", "only server"),
        ("broadcast/hub.py", "from hypercorn.config import Config", "only server"),
        ("broadcast/hub.py", "from broadcasterd.observe import metrics", "handed in"),
        ("broadcast/hub.py", "from ..host.memory import sample", "handed in"),
        ("daemon.py", "import quart_trio", "only server"),
        ("observe/journal.py", "from quart import Quart", "only server"),
        ("broadcast/hub.py", "import trio\nlock = trio.Lock()", "2: uses trio.Lock"),
        ("broadcast/hub.py", "import trio as t\nt.StrictFIFOLock()", "uses trio.StrictFIFOLock"),
        ("broadcast/hub.py", "from trio import Semaphore", "imports trio.Semaphore"),
        ("server/app.py", "import trio\nx: trio.Condition", "uses trio.Condition"),
        ("server/app.py", "import trio\nmake = trio.CapacityLimiter", "uses trio.CapacityLimiter"),
        ("server/app.py", "from trio import Lock as L\nL()", "uses trio.Lock"),
        ("server/app.py", "import threading", "no thread touches state"),
        ("core/wire.py", "from threading import Thread", "no thread touches state"),
        ("host/memory.py", "import threading\nthreading.Lock()", "uses threading.Lock"),
        ("host/memory.py", "from threading import RLock", "imports threading.RLock"),
        ("host/memory.py", "import asyncio", "one Trio run"),
        ("host/memory.py", "from asyncio import Queue", "one Trio run"),
        ("host/memory.py", "from multiprocessing import Lock", "imports multiprocessing.Lock"),
        ("host/memory.py", "import multiprocessing.synchronize", "it is one process"),
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
        ("core/wire.py", "import re, msgspec\nfrom collections.abc import Iterator"),
        ("core/wire.py", "from broadcasterd.core.event import Event\nfrom ..errors import Problem"),
        ("core/wire.py", "from broadcasterd import errors\nfrom . import event"),
        ("errors.py", "from broadcasterd.core.reasons import EndReason"),
        ("broadcast/hub.py", "import trio\ntrio.Event()\ntrio.open_memory_channel(1)"),
        ("broadcast/hub.py", "from broadcasterd.core import wire\nimport broadcasterd.config"),
        ("broadcast/hub.py", "class Lock: ...\nself.Lock = Lock()\nblueprint.print()"),
        ("server/app.py", "import quart\nfrom hypercorn.trio.tcp_server import TCPServer"),
        ("server/app.py", "from broadcasterd.broadcast.hub import Hub"),
        ("daemon.py", "try:\n    x\nexcept* OSError:\n    pass"),
        ("daemon.py", "from broadcasterd.observe import journal\nfrom broadcasterd.host import x"),
        ("cli.py", "import sys\nprint(1)\nsys.exit(1)\nraise SystemExit(2)"),
        ("host/memory.py", "import threading\nthreading.get_ident()"),
    ],
)
def test_the_checker_lets_pass(file: str, source: str) -> None:
    assert violations(source, file) == []
