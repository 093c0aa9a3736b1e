"""Texts that others chose, as a terminal may be given them.

A terminal obeys control characters: they move the cursor, and change what was printed. And whoever
reads a log believes that a line is a record.
"""

from __future__ import annotations

_OBEYED = (
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C, 0x200E, 0x200F, 0x2028, 0x2029,  # lines, and the direction of what follows
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)  # fmt: skip
_CODES = {code: chr(code).encode("unicode_escape").decode() for code in _OBEYED}
_CODES_BUT_LF = {code: text for code, text in _CODES.items() if code != ord("\n")}


def printable(text: str) -> str:
    """Return a text as one line, with control characters shown by their codes."""
    return text.translate(_CODES)


def printable_lines(text: str) -> str:
    """Return a text that may have several lines."""
    return text.translate(_CODES_BUT_LF)
