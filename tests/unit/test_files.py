"""A handover in files: read once, then gone, and open to nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broadcasterd.handover.files import HandoverFiles


def names(directory: Path) -> list[str]:
    """Return what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


async def test_segments_are_kept_and_taken_once(tmp_path: Path) -> None:
    before = HandoverFiles(tmp_path)
    for index, segment in enumerate((b"first", b"second")):
        await before.keep_segment(index, bytearray(segment))
    after = HandoverFiles(tmp_path)

    assert 2 == after.segments
    assert [b"first", b"second"] == [await after.take_segment(index) for index in range(2)]
    assert [] == names(tmp_path)
    assert b"" == await after.take_segment(0)


async def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    await HandoverFiles(tmp_path).keep_segment(0, bytearray(b"x"))
    [name] = names(tmp_path)

    assert 0o600 == os.stat(tmp_path / name).st_mode & 0o777  # noqa: PTH116 (nothing blocks here)


async def test_what_was_not_read_is_removed_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "somebody-else's").write_text("x")
    files = HandoverFiles(tmp_path)
    await files.keep_segment(7, bytearray(b"x"))

    assert [] == await files.take_sockets()
    assert ["somebody-else's"] == names(tmp_path)


async def test_what_cannot_be_written_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await HandoverFiles(tmp_path / "missing").keep_segment(0, bytearray(b"x"))
