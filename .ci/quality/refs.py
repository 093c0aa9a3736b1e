"""Which commit is meant: the one that was named, or the one that runs here now."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from quality.processes import QualityError, git


def commit_of(ref: str, checkout: Path) -> str:
    """Return the commit that a ref of Git names.

    Raises:
        QualityError: it names none.

    """
    try:
        return git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", directory=checkout)
    except QualityError as error:
        raise QualityError(f"there is no commit {ref!r} in this repository") from error


def to_compare_with(checkout: Path, library: Path) -> str:
    """Return the commit of the current release, or else of the last tag.

    Args:
        checkout: has the repository.
        library: the directory of the releases; each notes the commit that it was made of, where
            there was one, and else may have a tag of its version.

    Raises:
        QualityError: there is neither.

    """
    release = library / "current"
    version = release.resolve().name if release.exists() else None
    known = [note.read_text("utf-8").strip()] if (note := release / "commit").exists() else []
    if version is not None:
        known += [f"refs/tags/v{version}", f"refs/tags/{version}"]
    with suppress(QualityError):
        known.append(git("describe", "--tags", "--abbrev=0", directory=checkout))
    for ref in known:
        with suppress(QualityError):
            return commit_of(ref, checkout)
    installed = "no release is installed" if version is None else f"release {version} has no tag"
    raise QualityError(f"{installed}, and there is no tag: say REF= and a commit")
