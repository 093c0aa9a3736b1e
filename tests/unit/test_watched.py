"""The figures that alerts may watch, and the alerts that are shipped, are those of the document."""

from __future__ import annotations

import re
from pathlib import Path

from broadcasterd.config import SHIPPED_RULES
from broadcasterd.figures.watched import Watched

DOCUMENT = (Path(__file__).parents[2] / "docs/alerts.md").read_text()


def first_columns(heading: str) -> list[str]:
    """Return the first column of each table of a section."""
    section = DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_each_figure_is_explained() -> None:
    assert [*Watched] == first_columns("Rules")


def test_each_alert_that_is_shipped_is_listed() -> None:
    assert [rule.name for rule in SHIPPED_RULES] == first_columns("What is watched by default")
