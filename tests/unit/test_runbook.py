"""The runbook has each record that is a warning or worse, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from broadcasterd.config import SHIPPED_RULES

PROJECT = Path(__file__).parents[2]
SOURCES = sorted((PROJECT / "daemon").rglob("*.py"))
RUNBOOK = (PROJECT / "docs/runbook.md").read_text()

SERIOUS = {"warning", "error", "exception", "critical", "tell"}
"""Levels; ``tell`` is one of them, or a lower one, as it turns out."""


def serious_records(source: str) -> Iterator[str]:
    """Yield the text of each record that a source writes as a warning or worse."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name("log"), attr=level) | ast.Name(level),
                args=[ast.Constant(str(text)), *_],
            ) if level in SERIOUS:
                yield text


def explained() -> set[str]:
    """Return the records in the table of the runbook."""
    table = RUNBOOK.partition("## Records")[2]
    rows = re.findall(r"^\| (`.*?`) \| (?!what)", table, re.MULTILINE)
    return {text for row in rows for text in re.findall(r"`([^`]+)`", row)}


def test_each_record_is_explained() -> None:
    written = {text for path in SOURCES for text in serious_records(path.read_text())}

    assert len(written) > 20
    assert written == explained()


def test_each_alert_that_is_shipped_is_explained() -> None:
    section = RUNBOOK.partition("## Alerts of the daemon")[2].partition("## Records")[0]

    assert [rule.name for rule in SHIPPED_RULES] == re.findall(r"^### (.*)", section, re.MULTILINE)


def test_records_are_seen() -> None:
    source = (
        'log.warning("a", b=1)\nlog.info("c")\nlog.exception("d")\nother.error("e")\ntell("f")\n'
    )

    assert ["a", "d", "f"] == list(serious_records(source))
