"""Other releases, made of the one that is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

PACKAGES = "lib/python3*/site-packages"
OWN = "broadcasterd"
"""What of the packages is the release's own: the rest is what it runs on."""


def another(release: Path, place: Path) -> None:
    """Make a copy of a release, to be put beside it.

    What it runs on is that release's: one has thousands of files, and all of them are the same.
    """
    [packages] = release.glob(PACKAGES)
    shared = {path.name for path in packages.iterdir() if not path.name.startswith(OWN)}

    def not_copied(directory: str, _: list[str]) -> set[str]:
        return shared if Path(directory) == packages else set()

    shutil.copytree(release, place, symlinks=True, ignore=not_copied)
    up = "../" * (len(packages.relative_to(release).parts) + 1)
    for name in shared:
        there = packages.relative_to(release) / name
        (place / there).symlink_to(f"{up}{release.name}/{there}")


def edit(release: Path, module: str, old: str, new: str) -> None:
    """Change a module; what was compiled is never compared with its source."""
    [package] = release.glob(f"{PACKAGES}/{OWN}")
    path = package / module
    text = path.read_text()

    assert old in text
    replace(path, text.replace(old, new))
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()


def replace(path: Path, text: str) -> None:
    """Put another file in the place of one that all releases share."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_text(text)
    path.chmod(mode)
