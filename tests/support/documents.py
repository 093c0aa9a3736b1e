"""Documents: what their links lead to, and the listings that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADING_OR_LISTING = re.compile(
    r"^#+ (?P<heading>[^\n]+)$"
    r"|^(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?"
    r"```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing of a document.

    Attributes:
        heading: of its section.
        language: as its fence names it: ``sh``, ``python``, ``text`` for what is printed.
        text: its lines.
        reason: why no test runs it; ``""`` where one does.

    """

    heading: str
    language: str
    text: str
    reason: str


def listings(document: Path) -> Iterator[Listing]:
    """Yield the listings of a document."""
    heading = ""
    for found in _HEADING_OR_LISTING.finditer(document.read_text()):
        if found["heading"] is not None:
            heading = found["heading"]
        else:
            yield Listing(heading, found["language"], found["text"], found["reason"] or "")


def shell_of(document: Path, heading: str | None = None) -> str:
    """Return the commands of a document, or of a section, but for those that are not run."""
    return "".join(
        listing.text
        for listing in listings(document)
        if listing.language == "sh" and not listing.reason and heading in {None, listing.heading}
    )


def listings_of(document: Path, language: str, heading: str | None = None) -> list[str]:
    """Return the listings of a document, or of a section, that are in a language."""
    return [
        listing.text
        for listing in listings(document)
        if listing.language == language and heading in {None, listing.heading}
    ]


def prose_of(document: Path) -> str:
    """Return a document without its listings."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


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
