"""What is measured: this checkout as it is, or a commit of it in a worktree of its own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quality.environment import prepare
from quality.processes import Done, QualityError, git, run, uninterrupted
from quality.refs import commit_of

CHECKOUT = Path(__file__).parents[2]

READY = (".venv/.installed", ".venv-tools/.installed")
"""Targets of the Makefile that are as they should be, however old they look."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of the project, with an environment to run it in.

    Attributes:
        path: its root.
        python: has this tree's package, and what it is developed with.
        logs: a directory for what the commands print.

    """

    path: Path
    python: Path
    logs: Path

    @property
    def commit(self) -> str | None:
        """The commit that is checked out; ``None`` where there is no repository."""
        try:
            return git("rev-parse", "--verify", "HEAD", directory=self.path)
        except QualityError:
            return None

    @property
    def changed(self) -> bool:
        """Whether there is anything that is not committed."""
        try:
            return bool(git("status", "--porcelain", directory=self.path))
        except QualityError:
            return True

    @property
    def version(self) -> str:
        """The version that the package declares."""
        declared = re.search(
            r'^__version__ = "(.+)"$', self.read("daemon/broadcasterd/__init__.py"), re.MULTILINE
        )
        return declared[1] if declared else "unknown"

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return (self.path / name).exists()

    def read(self, name: str) -> str:
        """Return the text of a file; nothing, where there is none."""
        path = self.path / name
        return path.read_text("utf-8") if path.exists() else ""

    def run(self, part: str, *command: str | Path, within: float | None = None) -> Done:
        """Run a command for a part of the report, in the root.

        Raises:
            QualityError: it took longer than ``within`` seconds, or cannot be run.

        """
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{part}.log"
        return run(command, directory=self.path, log=log, within=within)

    def make(self, part: str, target: str) -> Done:
        """Run a target of the tree's own Makefile, in the environment as it is.

        Raises:
            QualityError: there is no such target.

        """
        if not re.search(rf"^{target}:", self.read("Makefile"), re.MULTILINE):
            raise QualityError(f"its Makefile has no target {target}")
        return self.run(part, "make", "--silent", *(f"--old-file={each}" for each in READY), target)


@contextmanager
def worktree(ref: str, logs: Path, *, checkout: Path = CHECKOUT) -> Iterator[Tree]:
    """Check a commit out into a folder of its own, for as long as it is measured.

    The checkout stays as it is: no branch moves, and neither index nor files are touched.

    Raises:
        QualityError: there is no such commit, or no environment for it.

    """
    commit = commit_of(ref, checkout)
    with _folder() as folder:
        path = folder / "tree"
        try:
            git("worktree", "add", "--quiet", "--detach", path, commit, directory=checkout)
            prepare(path, checkout, logs)
            yield Tree(path, path / ".venv/bin/python", logs)
        finally:
            with uninterrupted():
                _remove(path, checkout)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = tempfile.TemporaryDirectory(prefix="broadcasterd-")
    try:
        yield Path(folder.name)
    finally:
        with uninterrupted():
            folder.cleanup()


def _remove(path: Path, checkout: Path) -> None:
    """Remove a worktree, if it came to be."""
    there = git("worktree", "list", "--porcelain", directory=checkout).splitlines()
    if f"worktree {path.resolve()}" in there:
        git("worktree", "remove", "--force", "--force", path, directory=checkout)
