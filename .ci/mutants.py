"""Change what decides, one place at a time, and see the unit tests notice: mutation testing.

    python .ci/mutants.py core/keys memory

A mutant that no test kills is a survivor. Those that cannot be told from the original, or that no
test should tell from it, are listed in mutants.toml, each with the reason. The exit status is 1 if
there is another, or if the list names one that is killed, or that there is no longer.

The tests of a mutant run in a process of their own, forked from a pytest that has collected them
already; there, functions get the code of the mutant. For what survives that, or changes what runs
when a file is imported, it is forked before anything is collected, and imports the mutant instead
of the file. No file is touched.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import inspect
import json
import os
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest
from typing_extensions import override

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "daemon/broadcasterd"
UNIT_TESTS = ROOT / "tests/unit"
GENERATOR = (ROOT / ".venv-mutants/bin/python", ROOT / ".ci/mutations.py")
LIST = ROOT / ".ci/mutants.toml"
REPORT = ROOT / "build/mutants.json"

PACKAGES = ("core", "memory", "access")
OPTIONS = (
    *(
        "-x",
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--hypothesis-profile=mutants",
    ),
    *("-o", "timeout=30"),  # seconds: a mutant that waits for ever is killed by that
)
ARITHMETIC = (
    *(ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp),
    *(ast.expr_context, ast.operator, ast.unaryop),
)
"""What a constant is computed with."""

CPU_S = 60
"""A mutant that counts for ever is killed by that."""
MEMORY_BYTES = 2 << 30
"""And one that allocates for ever by that."""

ALSO = {
    "access/key_files.py": ("tokens",),
    "core/cost.py": ("replaylog",),
    "core/decoder.py": ("wire",),
    "core/event.py": ("formats",),
    "core/history.py": ("replaylog",),
    "core/keys.py": ("replaylog",),
    "core/run.py": ("batch",),
    "core/segment.py": ("history", "replaylog"),
}
"""Tests of a file besides those in the file of its name: as few as can tell."""

Change = tuple[str, str]
"""The lines before and after, without indentation."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A source file with one place changed."""

    file: str
    operator: str
    was: str
    becomes: str
    text: str

    @property
    def change(self) -> Change:
        """What tells it from others in its file, wherever the lines move to."""
        return self.was, self.becomes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run found.

    Attributes:
        mutants: how many there were, and
        killed: so many of them; as many as there are files are in neither.
        survivors: all others that are not listed.
        listed: those that survived and may.
        outdated: what is listed and need not be.

    """

    mutants: int
    killed: int
    survivors: list[Mutant]
    listed: list[Mutant]
    outdated: list[str]

    def lines(self) -> Iterator[str]:
        """Yield what a person reads."""
        for mutant in self.survivors:
            yield f"survived: {mutant.file} ({mutant.operator})"
            yield from (f"    - {line}" for line in mutant.was.splitlines())
            yield from (f"    + {line}" for line in mutant.becomes.splitlines())
        yield from (f"listed, but killed or gone: {change}" for change in self.outdated)
        yield (
            f"{self.mutants} mutants: {self.killed} killed,"
            f" {len(self.listed)} survivors listed with a reason,"
            f" {len(self.survivors)} survivors beyond the listed"
        )


def main() -> int:
    """Run the mutants that are asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("only", nargs="*", help="core, core/keys; all without", default=PACKAGES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    sys.dont_write_bytecode = False  # or each process compiles all tests anew

    mutants: list[Mutant] = []
    survivors: list[Mutant] = []
    files = list(asked_for(asked.only))
    for file in files:
        found = list(mutants_of(file))
        survived = run(found, asked.jobs)
        print(f"{file}: {len(found) - len(survived)} of {len(found)} killed", flush=True)
        mutants += found
        survivors += survived
    verdict = judge(mutants, survivors, accepted(files))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(asdict(verdict), indent=1))
    print("\n".join(verdict.lines()))
    return 1 if verdict.survivors or verdict.outdated else 0


def asked_for(names: Iterable[str]) -> Iterator[str]:
    """Yield the files of packages and modules, as ``core/keys.py``."""
    for name in names:
        paths = sorted((SOURCES / name).glob("*.py")) or [(SOURCES / name).with_suffix(".py")]
        yield from (path.relative_to(SOURCES).as_posix() for path in paths if path.stat().st_size)


def accepted(files: Sequence[str]) -> set[tuple[str, Change]]:
    """Return the survivors that are listed for these files."""
    listed = tomllib.loads(LIST.read_text())
    return {
        (file, (each["was"].strip(), each["becomes"].strip()))
        for file, entries in listed.items()
        if file in files
        for each in entries
    }


def judge(
    mutants: Sequence[Mutant], survivors: Sequence[Mutant], listed: set[tuple[str, Change]]
) -> Verdict:
    """Compare with the list."""
    found = {(mutant.file, mutant.change) for mutant in survivors}
    outdated = [f"{file}: {was} -> {becomes}" for file, (was, becomes) in sorted(listed - found)]
    excused = [mutant for mutant in survivors if (mutant.file, mutant.change) in listed]
    return Verdict(
        mutants=len(mutants),
        killed=len(mutants) - len(survivors),
        survivors=[mutant for mutant in survivors if mutant not in excused],
        listed=excused,
        outdated=outdated,
    )


# --- mutants ---------------------------------------------------------------------------------


def mutants_of(file: str) -> Iterator[Mutant]:
    """Yield the mutants of a file."""
    path = SOURCES / file
    source = path.read_text()
    done = subprocess.run([*GENERATOR, path], stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    for line in done.stdout.splitlines():
        made = json.loads(line)
        if meaning(made["text"]) == meaning(source):
            continue
        was, becomes = change(source, made["text"])
        yield Mutant(file, made["operator"], was, becomes, made["text"])


def meaning(source: str) -> str:
    """Return what tests are to tell of a source."""
    tree = ast.parse(source)
    _Meaning().visit(tree)
    return ast.dump(tree)


class _Meaning(ast.NodeVisitor):
    """Takes out of a syntax tree what no test is to tell.

    Annotations and ``override`` are mypy's, and so is whether a class is frozen, or has slots;
    ``strict`` guards against what does not come. The number that a constant of a file is set to is
    its author's, who has a reason: tests use its name, for to repeat the number shows nothing.
    """

    @override
    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            node.decorator_list = [
                each for each in node.decorator_list if ast.unparse(each) != "override"
            ]
        super().generic_visit(node)

    @override
    def visit_Module(self, module: ast.Module) -> None:
        for node in module.body:
            match node:
                case ast.Assign(targets=[ast.Name(name)]) if name.isupper():
                    if all(isinstance(each, ARITHMETIC) for each in ast.walk(node.value)):
                        node.value = ast.Constant("")
        self.generic_visit(module)

    @override
    def visit_arg(self, node: ast.arg) -> None:
        node.annotation = None

    @override
    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        node.annotation = ast.Constant("")
        self.generic_visit(node)

    @override
    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg in {"frozen", "slots", "gc", "strict"}:
            node.value = ast.Constant(value=True)
        self.generic_visit(node)


def change(source: str, text: str) -> Change:
    """Return the lines that differ."""
    was, becomes = [], []
    for line in difflib.ndiff(source.splitlines(), text.splitlines()):
        if line.startswith("- "):
            was.append(line[2:].strip())
        elif line.startswith("+ "):
            becomes.append(line[2:].strip())
    return "\n".join(filter(None, was)), "\n".join(filter(None, becomes))


# --- tests ----------------------------------------------------------------------------------


def run(mutants: Sequence[Mutant], jobs: int) -> list[Mutant]:
    """Run the tests of the mutants of one file; return those that survive, in their order."""
    quick = [mutant for mutant in mutants if functions_changed(mutant) is not None]
    left = _run(quick, jobs, by_import=False) if quick else []
    others = [mutant for mutant in mutants if mutant in left or mutant not in quick]
    return _run(others, jobs, by_import=True) if others else []


def killers(file: str) -> list[str]:
    """Return the files with the tests of a source file."""
    own = UNIT_TESTS / f"test_{Path(file).name}"
    also = [UNIT_TESTS / f"test_{name}.py" for name in ALSO.get(file, ())]
    return [str(path) for path in (own, *also) if path.exists()]


def _run(mutants: Sequence[Mutant], jobs: int, *, by_import: bool) -> list[Mutant]:
    """Have a pytest of their own run mutants of one file; return those that survive."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        status = 1
        try:
            os.close(reader)
            _be_quiet()
            plugin = _Mutating(mutants, jobs, by_import=by_import)
            status = pytest.main([*OPTIONS, *killers(mutants[0].file)], plugins=[plugin])
            if not plugin.is_mutant:
                os.write(writer, json.dumps(plugin.survivors).encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as result:
        survivors = result.read()
    os.waitpid(pid, 0)
    if not survivors:
        raise SystemExit(f"without a mutant, the tests of {mutants[0].file} fail")
    return [mutants[number] for number in sorted(json.loads(survivors))]  # not as they ended


def _be_quiet() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


class _Mutating:
    """A plugin of pytest: instead of one run of the tests, one in a forked process per mutant.

    Attributes:
        survivors: the numbers of the mutants whose tests passed.
        is_mutant: whether this is one of the forked processes.

    """

    def __init__(self, mutants: Sequence[Mutant], jobs: int, *, by_import: bool) -> None:
        self.mutants = mutants
        self.jobs = jobs
        self.by_import = by_import
        self.survivors: list[int] = []
        self.is_mutant = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Fork before anything of ours is imported."""
        if self.by_import:
            self._fork_each()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> object:
        """Fork when all tests are collected; run none of them here."""
        if not self.by_import:
            self._fork_each()
        return None if self.is_mutant else True

    def _fork_each(self) -> None:
        """Fork for each mutant, at first for none; return in those, and here when all are gone."""
        if not self._is_fine_without():
            os._exit(1)
        running: dict[int, int] = {}  # the number of the mutant, by process
        for number, mutant in enumerate(self.mutants):
            while len(running) >= self.jobs:
                self._wait(running)
            if (pid := os.fork()) == 0:
                self._become(mutant)
                return
            running[pid] = number
        while running and not self.is_mutant:
            self._wait(running)

    def _is_fine_without(self) -> bool:
        if pid := os.fork():
            return os.waitpid(pid, 0)[1] == 0
        self._become(None)
        return True

    def _wait(self, running: dict[int, int]) -> None:
        pid, status = os.wait()
        number = running.pop(pid)
        if status == 0:
            self.survivors.append(number)

    def _become(self, mutant: Mutant | None) -> None:
        self.is_mutant = True
        self.mutants = ()
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        if mutant and self.by_import:
            sys.meta_path.insert(0, _Finder(mutant))
        elif mutant:
            _change_functions(mutant)


# --- the code of a mutant ----------------------------------------------------------------------


def functions_changed(mutant: Mutant) -> list[tuple[CodeType, CodeType]] | None:
    """Return the functions' code before and after; ``None`` if other code is changed."""
    path = SOURCES / mutant.file
    return _changed(_compiled(path.read_text(), path), _compiled(mutant.text, path))


def _changed(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    if old == new:
        return []
    if old.co_flags & inspect.CO_OPTIMIZED:  # a function, and not the body of a class or file
        return [(old, new)]
    changed: list[tuple[CodeType, CodeType]] = []
    if old.co_code != new.co_code or len(old.co_consts) != len(new.co_consts):
        return None
    for before, after in zip(old.co_consts, new.co_consts, strict=True):
        if isinstance(before, CodeType) and isinstance(after, CodeType):
            inner = _changed(before, after)
            if inner is None:
                return None
            changed += inner
        elif before != after:
            return None
    return changed


def _change_functions(mutant: Mutant) -> None:
    """Give all functions the code of the mutant."""
    gc.unfreeze()  # what is frozen is not found
    codes = dict(functions_changed(mutant) or ())
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__ in codes:
            each.__code__ = codes[each.__code__]


def _compiled(text: str, path: Path) -> CodeType:
    return compile(text, str(path), "exec", dont_inherit=True)


def _module(file: str) -> str:
    return f"broadcasterd.{file.removesuffix('.py').replace('/', '.')}"


class _Finder(MetaPathFinder):
    """Finds a mutant where its file is asked for."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = _module(mutant.file)
        if self.name in sys.modules:
            raise RuntimeError(f"{self.name} is imported already")

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        file = str(SOURCES / self.mutant.file)
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, file, self.mutant))


class _Loader(SourceFileLoader):
    """Loads a mutant."""

    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self.mutant = mutant

    @override
    def get_code(self, fullname: str) -> CodeType:
        return _compiled(self.mutant.text, Path(self.path))


if __name__ == "__main__":
    sys.exit(main())
