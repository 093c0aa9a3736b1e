"""Other releases, made of the one that is installed."""

from __future__ import annotations

from pathlib import Path


def edit(release: Path, module: str, old: str, new: str) -> None:
    """Change a module; what was compiled is never compared with its source."""
    [package] = release.glob("lib/python3*/site-packages/broadcasterd")
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
