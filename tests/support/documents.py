"""Documents: what their links lead to, and the commands that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def prose_of(document: Path) -> str:
    """Return a document without its listings."""
    return re.sub(
        r"^```.*?^```|^    .*?$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL
    )


def commands_below(document: Path, heading: str) -> list[str]:
    """Return the lines of the first listing below a heading."""
    section = document.read_text().partition(f"\n{heading}\n")[2]
    [listing] = re.findall(r"\n\n((?: {4}.*\n)+)", section)[:1]
    return [line.removeprefix("    ") for line in listing.splitlines()]


def anchors_of(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as the repository's host makes them."""
    headings = re.findall(r"^#+ (.*)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> Iterator[str]:
    """Yield the links of a document that lead to no file, or to no heading in it."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose_of(document)):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            yield link


def listings_of(document: Path, language: str) -> list[str]:
    """Return the fenced listings of a document that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
