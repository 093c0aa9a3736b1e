"""The documents: their links lead somewhere, and the files that they name are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployment.documents import documents
from tests.support.documents import broken_links, prose_of

PROJECT = Path(__file__).parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
NAMES = [document.relative_to(PROJECT).as_posix() for document in DOCUMENTS]
PLACES = (
    *(PROJECT, PROJECT / "daemon/broadcasterd", PROJECT / "systemd"),
    *(PROJECT / "tests" / kind for kind in ("unit", "integration", "systemd", "support")),
)
"""Where a file is that a document names."""

each_document = pytest.mark.parametrize("name", NAMES)


def missing_files(document: Path) -> Iterator[str]:
    for named in re.findall(r"`([\w/.-]+\.(?:py|toml|lock|service|socket))`", prose_of(document)):
        if not named.startswith("/") and not any((place / named).exists() for place in PLACES):
            yield named


@each_document
def test_every_link_leads_somewhere(name: str) -> None:
    assert [] == list(broken_links(PROJECT / name))


@each_document
def test_every_file_that_is_named_is_there(name: str) -> None:
    assert [] == list(missing_files(PROJECT / name))


def test_the_links_of_installed_documents_lead_to_what_is_installed(tmp_path: Path) -> None:
    made = documents(PROJECT)
    for name, contents in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    below = [name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")]

    assert {*below, "CHANGELOG.md", "config/broadcasterd.toml"} <= set(made)
    assert {} == {
        name: broken
        for name in made
        if name.endswith(".md") and (broken := [*broken_links(tmp_path / name)])
    }


def test_the_index_has_every_document() -> None:
    index = (PROJECT / "docs/README.md").read_text()
    below = [name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")]

    assert ["README.md"] == [name for name in below if f"]({name})" not in index]


def test_a_link_to_nowhere_and_a_file_that_is_gone_are_seen(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("# Here I am\n[a](#here-i-am) [b](#there) [c](gone.md) `edge/app.py`\n")

    assert ["#there", "gone.md"] == list(broken_links(document))
    assert ["edge/app.py"] == list(missing_files(document))
