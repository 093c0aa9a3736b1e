"""Goes through the parts of a report, and notes of each that cannot be measured why."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Collection
from typing import Any

from quality import checks
from quality.load import under_load
from quality.processes import QualityError
from quality.report import Report, now
from quality.sections import Deadlocks
from quality.suite import STRESS, run_tests
from quality.trees import Tree

PARTS = ("lint", "types", "security", "load", "hooks", "tests", "stress", "coverage")
"""The parts, in the order in which they are measured: what takes long is last."""

LEFT_OUT = "left out (ONLY=)"

Measure = Callable[[], dict[str, Any]]
"""Returns fields of a report; or raises QualityError."""


def measure(tree: Tree, selection: str, only: Collection[str] = PARTS) -> Report:
    """Measure a tree.

    Args:
        tree: what to measure.
        selection: of the tests: ``all``, ``fast`` or a path.
        only: the parts that are asked for.

    """
    date, measures = now(), _measures(tree, selection)
    found: dict[str, Any] = {}
    unmeasured = {part: LEFT_OUT for part in PARTS if part not in only}
    for part, figures in measures.items():
        if part in unmeasured:
            continue
        _say(f"{part} …")
        try:
            found |= figures()
        except QualityError as error:
            unmeasured[part] = str(error)
            _say(f"{part}: not measured: {error}")
    tests, hooks = found.get("tests"), found.get("hooks")
    return Report(
        date=date,
        commit=tree.commit,
        changed=tree.changed,
        version=tree.version,
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)),
        selection=selection,
        **found,
        deadlocks=Deadlocks.of([tests, found.get("stress")], found.get("loop")),
        success_rate=tests and tests.success_rate,
        hooks_seconds=hooks and hooks.seconds,
        unmeasured=unmeasured,
    )


def _measures(tree: Tree, selection: str) -> dict[str, Measure]:
    """Return what measures each part, in the order of ``PARTS``."""

    def load() -> dict[str, Any]:
        health, memory, loop = under_load(tree)
        return {"health": health, "memory": memory, "loop": loop}

    return {
        "lint": lambda: {"lint": checks.lint(tree)},
        "types": lambda: {"types": checks.types(tree)},
        "security": lambda: {"security": checks.security(tree)},
        "load": load,
        "hooks": lambda: {"hooks": checks.hooks(tree)},
        "tests": lambda: {"tests": run_tests(tree, selection)},
        "stress": lambda: {"stress": run_tests(tree, STRESS, "stress")},
        "coverage": lambda: {"coverage": checks.coverage(tree)},
    }


def _say(what: str) -> None:
    print(f"quality: {what}", file=sys.stderr, flush=True)
