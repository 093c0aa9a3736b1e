"""Texts of others on a terminal: nothing in them is obeyed."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.observe.printable import printable, printable_lines


def test_control_characters_are_shown_by_their_codes() -> None:
    assert r"\x1b[2J\r\n\x07\x9b1m\u202e" == printable("\x1b[2J\r\n\x07\x9b1m\u202e")


def test_a_text_of_several_lines_keeps_them() -> None:
    assert "a\nb\\r" == printable_lines("a\nb\r")


def test_all_else_stays() -> None:
    assert "Grüße, 世界 🙂" == printable("Grüße, 世界 🙂")


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    kinds = {unicodedata.category(char) for char in printable(text)}

    assert not kinds & {"Cc", "Zl", "Zp"}
