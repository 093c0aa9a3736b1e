"""Files and links, replaced in one step: an interruption leaves the old or the new."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replace_link(link: Path, target: str) -> None:
    """Have a link lead to a target; it replaces anything in its place but a directory."""
    new = _beside(link)
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def replace_file(source: Path, target: Path) -> None:
    """Copy a file that everybody may read."""
    new = _beside(target)
    shutil.copyfile(source, new)
    new.chmod(0o644)
    new.replace(target)


def link_or_copy(source: str, target: str) -> None:
    """Have a file, which nobody writes to, in a second place: as itself where that is possible."""
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)


def write_once(path: Path, text: str, mode: int) -> None:
    """Write a file, unless there is one: that is left alone, and so is a link to nowhere."""
    if path.exists() or path.is_symlink():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(path)
    new.unlink(missing_ok=True)
    new.touch(mode)
    new.write_text(text, "utf-8")
    new.replace(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}")
