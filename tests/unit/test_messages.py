"""The ids of records: unique, of records that there are, and explained in the catalog."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import broadcasterd
from broadcasterd.observe.messages import MESSAGE_IDS

SOURCES = Path(broadcasterd.__file__).parent
PROJECT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "tell"}

CATALOG = (PROJECT / "systemd/broadcasterd.catalog").read_text()
# A header (systemd's catalog format): two hyphens, and the id without any.
ENTRIES = dict(re.findall(r"^-- ([0-9a-f]{32})\n((?:(?!^-- ).*\n)+)", CATALOG, re.MULTILINE))


@pytest.fixture(scope="module")
def logged() -> set[str]:
    """Return the texts of all calls of a logger in the sources."""
    return set(texts())


def texts() -> Iterator[str]:
    """Yield the text of every call of a logger in the sources."""
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr=name) | ast.Name(id=name),
                    args=[ast.Constant(value=str(text)), *_],
                ) if name in LEVELS:
                    yield text


def test_an_id_is_a_random_one_of_128_bits() -> None:
    for message_id in MESSAGE_IDS.values():
        assert re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", message_id)


def test_no_two_kinds_have_the_same_id() -> None:
    assert 1 == max(Counter(MESSAGE_IDS.values()).values())


@pytest.mark.parametrize("text", MESSAGE_IDS)
def test_a_record_of_this_text_is_written_somewhere(text: str, logged: set[str]) -> None:
    assert text in logged


def test_the_catalog_explains_each_kind_and_no_other() -> None:
    assert set(MESSAGE_IDS.values()) == set(ENTRIES)


@pytest.mark.parametrize("message_id", ENTRIES)
def test_an_entry_has_a_subject_and_a_text(message_id: str) -> None:
    header, _, text = ENTRIES[message_id].partition("\n\n")

    assert "Subject: " in header
    assert "Defined-By: broadcasterd" in header
    assert text.strip()


def test_the_documents_that_it_names_are_installed() -> None:
    named = re.findall(
        r"^Documentation: file:/usr/share/doc/broadcasterd/(.*)", CATALOG, re.MULTILINE
    )

    assert len(ENTRIES) == len(named)
    assert [] == [name for name in named if not (PROJECT / "docs" / name).is_file()]


def test_the_ids_in_the_documentation_are_those() -> None:
    named = re.findall(r"MESSAGE_ID=([0-9a-f]{32})", (PROJECT / "docs/logs.md").read_text())

    assert named
    assert set(named) <= set(MESSAGE_IDS.values())
