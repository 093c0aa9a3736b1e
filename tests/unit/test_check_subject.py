"""The hook for the subject of a commit's message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.scripts import loaded
from tests.support.tools import require


@pytest.fixture
def script() -> Iterator[ModuleType]:
    """Load the script."""
    with loaded("hooks/check_subject.py") as module:
        yield module


@pytest.mark.parametrize(
    "message",
    [
        "A subject\n",
        "x" * 100,
        "ä" * 100,
        f"A subject\n\n{'x' * 200}\nof a body\n",
        "",  # Git itself refuses that one
    ],
)
def test_a_subject_of_one_line_is_fine(script: ModuleType, message: str) -> None:
    assert script.complaint_about(message) is None


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("x" * 101, "The subject has 101 characters, and 100 are allowed."),
        ("a\nb\n\nc", "The subject has 2 lines: leave the second line of a message blank."),
    ],
)
def test_the_complaint_says_what_is_allowed(
    script: ModuleType, message: str, complaint: str
) -> None:
    assert complaint == script.complaint_about(message)


def test_comments_of_the_editor_and_blank_lines_do_not_count(
    script: ModuleType, tmp_path: Path
) -> None:
    require("git")
    file = tmp_path / "COMMIT_EDITMSG"
    file.write_text(f"\n\n# {'x' * 200}\nA subject\n# On branch main\n")

    assert 0 == script.main(str(file))
