"""Setting a file aside that cannot be used, so that a person can look at it later."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

KEPT = 3
"""Files that were set aside and are kept: those of the last times."""

SIDE_FILES = ("", "-wal", "-shm", "-journal")


def set_aside(path: Path, unix_now: float) -> Path:
    """Rename a file of SQLite, and those beside it; return its new path.

    Raises:
        OSError: it cannot be renamed.

    """
    when = datetime.fromtimestamp(unix_now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.aside-{when}")
    for side in SIDE_FILES:
        there = path.with_name(path.name + side)
        if there.exists():
            there.rename(aside.with_name(aside.name + side))
    for old in _set_aside(path)[:-KEPT]:
        for side in SIDE_FILES:
            old.with_name(old.name + side).unlink(missing_ok=True)
    return aside


def _set_aside(path: Path) -> list[Path]:
    """Return the files that were set aside, oldest first, without those beside them."""
    found = sorted(path.parent.glob(f"{path.name}.aside-*"))
    return [each for each in found if each.name.endswith("Z")]
