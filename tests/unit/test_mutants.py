"""Mutants: which changes count as one, how a test kills one, and what may survive."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.scripts import loaded
from tests.support.tools import ROOT

FILE = "core/session_name.py"


@pytest.fixture
def mutants() -> Iterator[ModuleType]:
    """Load the script."""
    with loaded("mutants.py") as module:
        yield module


@pytest.mark.parametrize(
    ("source", "text", "same"),
    [
        ("def f(a: int) -> int: return 1", "def f(a: str) -> None: return 1", True),
        ("a: int | None = 1", "a: int & None = 1", True),
        ("@override\ndef f(): pass", "def f(): pass", True),
        ("@property\ndef f(): pass", "def f(): pass", False),
        ("@dataclass(slots=True)\nclass A: pass", "@dataclass(slots=False)\nclass A: pass", True),
        ("class A(Struct, frozen=True): pass", "class A(Struct, frozen=False): pass", True),
        ("class A(Struct, eq=True): pass", "class A(Struct, eq=False): pass", False),
        ("LIMIT = 4 * 16", "LIMIT = 4 * 17", True),
        ("LIMIT = 4 * KIB", "LIMIT = 4 // KIB", True),
        ("PATTERN = compile(1)", "PATTERN = compile(2)", False),
        ("limit = 16", "limit = 17", False),
        ("def f(): return 1", "def f(): return 2", False),
    ],
)
def test_a_change_counts_where_a_test_is_to_tell_it(
    mutants: ModuleType, source: str, text: str, *, same: bool
) -> None:
    assert same == (mutants.meaning(source) == mutants.meaning(text))


def test_a_mutant_is_known_by_the_lines_that_it_changes(mutants: ModuleType) -> None:
    source = "def f():\n    a = 1\n    return a\n"

    assert ("a = 1", "a = 2") == mutants.change(source, source.replace("1", "2"))


def mutant(script: ModuleType, was: str, becomes: str, file: str = FILE) -> object:
    source = (script.SOURCES / file).read_text()
    assert was in source
    return script.Mutant(file, "Some", was, becomes, source.replace(was, becomes))


def test_functions_get_the_code_of_a_mutant_if_it_changes_nothing_else(mutants: ModuleType) -> None:
    inside = mutant(mutants, "last_too_old = now", "last_too_old = -now", "core/replaylog.py")
    outside = mutant(mutants, "ROOM_BYTES = 64", "ROOM_BYTES = 64 + 1", "core/cost.py")

    [(before, after)] = mutants.functions_changed(inside)
    assert ("expire", "expire") == (before.co_name, after.co_name)
    assert mutants.functions_changed(outside) is None


def test_survivors_are_listed_or_told_and_the_list_holds_no_others(mutants: ModuleType) -> None:
    listed, told, killed = (
        mutants.Mutant("core/a.py", "Some", "a", becomes, "") for becomes in ("b", "c", "d")
    )
    may = {("core/a.py", ("a", "b")), ("core/a.py", ("a", "d"))}

    verdict = mutants.judge([listed, told, killed], [listed, told], may)

    assert (3, 1) == (verdict.mutants, verdict.killed)
    assert ([told], [listed]) == (verdict.survivors, verdict.listed)
    assert ["core/a.py: a -> d"] == verdict.outdated
    assert "1 survivors beyond the listed" in [*verdict.lines()][-1]


def test_each_survivor_that_is_listed_has_a_reason_and_a_file(mutants: ModuleType) -> None:
    listed = mutants.tomllib.loads(mutants.LIST.read_text())

    for file, entries in listed.items():
        assert (mutants.SOURCES / file).exists(), file
        assert all(entry["reason"] for entry in entries)


@pytest.mark.slow
def test_a_mutant_that_a_test_notices_is_killed_however_it_gets_into_the_process() -> None:
    script = f"""
import json, mutants
source = (mutants.SOURCES / {FILE!r}).read_text()
of = lambda was, to: mutants.Mutant({FILE!r}, "Some", was, to, source.replace(was, to))
made = [
    of("if _NAME", "if not _NAME"),  # in a function
    of("if _NAME", "if not not _NAME"),
    of("re.compile(", "re.compile('x' + "),  # outside of one
    of("re.compile(", "re.compile('' + "),
]
assert all(each.text != source for each in made)
print(json.dumps([made.index(each) for each in mutants.run(made, 2)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / ".ci"), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert [1, 3] == json.loads(done.stdout), done.stderr
    assert Path(ROOT / "daemon/broadcasterd" / FILE).exists()
