"""The releases on disk, side by side, and the links to those in use.

A release is never changed once it is there, because a running daemon may import from it at any
time. All that is added is a link ``before``, to the release that production goes back to.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployment.files import replace_file, replace_link

CURRENT = "current"
"""What production, the command `broadcasterd` and all other instances but staging start from."""

STAGING = "staging"

ROLLED_BACK = "rolled-back"
"""The release that production was taken back from last; the link is as old as that."""

KEPT = 5
"""The newest releases stay, beside those that are in use: one can go back so far."""

ABANDONED_S = 3600.0
"""A release that was begun so long ago and is not finished never will be."""


class DeploymentError(Exception):
    """Something went wrong; the text says what, to an operator."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """What production was taken back from, and when (Unix time)."""

    version: str
    at: float


class Releases:
    """The releases below a prefix.

    Args:
        prefix: ``/usr``, or that of a tree which is made for another machine.
        proc: where processes are listed; none of them runs out of such a tree.

    """

    def __init__(self, prefix: Path, *, proc: Path = Path("/proc")) -> None:
        self._library = prefix / "lib/broadcasterd"
        self._releases = self._library / "releases"
        self._units = prefix / "lib/systemd/system"
        self._proc = proc

    def __contains__(self, version: str) -> bool:
        return (self._releases / version / "bin/broadcasterd").exists()

    def path(self, version: str) -> Path:
        """Return the path of a release.

        Raises:
            DeploymentError: it is not there.

        """
        path = self._releases / version
        if version not in self:
            there = ", ".join(sorted(self._versions())) or "none"
            raise DeploymentError(f"there is no release {version}; there are: {there}")
        return path

    def contents(self, version: str) -> str | None:
        """Return the hash of a release's contents; ``None`` if there is no such release."""
        try:
            return (self._releases / version / "contents").read_text("utf-8").strip()
        except FileNotFoundError:
            return None

    @contextmanager
    def staged(self, version: str) -> Iterator[Path]:
        """Provide a directory to make a release in; in the end it is put in its place, in one step.

        It is removed instead if making the release fails.
        """
        self._releases.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{version}-", dir=self._releases))
        try:
            stage.chmod(0o755)
            yield stage
            stage.rename(self._releases / version)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def in_use(self, link: str) -> str | None:
        """Return the version that a link leads to."""
        return _version(self._library / link)

    def before(self, version: str) -> str | None:
        """Return the version that was current before this one, if it is still there."""
        return _version(self._releases / version / "before")

    @contextmanager
    def locked(self, *, first: bool = False) -> Iterator[None]:
        """Keep others from changing anything meanwhile.

        Args:
            first: this may be the first release of all.

        Raises:
            DeploymentError: another deployment is under way, or there is nothing to change.

        """
        if first:
            self._library.mkdir(parents=True, exist_ok=True)
        try:
            directory = os.open(self._library, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DeploymentError(f"nothing is installed in {self._library}") from None
        try:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DeploymentError("another deployment is under way") from None
            yield
        finally:
            os.close(directory)

    def use(self, link: str, version: str) -> None:
        """Have a link lead to a release, and install its units.

        The link is replaced in one step: a death in between leaves the old one.
        """
        release = self.path(version)
        self._units.mkdir(parents=True, exist_ok=True)
        for unit in (release / "systemd").iterdir():
            if unit.suffix != ".catalog" and (f"@{STAGING}." in unit.name) is (link == STAGING):
                replace_file(unit, self._units / unit.name)
        replace_link(self._library / link, f"releases/{release.name}")

    def note_before(self, version: str, before: str) -> None:
        """Note the release to go back to from another."""
        replace_link(self._releases / version / "before", f"../{before}")

    def note_rollback(self, version: str) -> None:
        """Note the release that production is taken back from now."""
        replace_link(self._library / ROLLED_BACK, f"releases/{version}")

    def last_rollback(self) -> Rollback | None:
        """Return what production was taken back from last, be it still there or not."""
        link = self._library / ROLLED_BACK
        if not link.is_symlink():
            return None
        return Rollback(link.readlink().name, link.lstat().st_mtime)

    def all(self) -> list[tuple[str, list[str]]]:
        """Return all versions, the newest first, each with what it is to whom."""
        current = self.in_use(CURRENT)
        uses = {
            "current": current,
            "staging": self.in_use(STAGING),
            "previous": current and self.before(current),
        }
        return [
            (version, [use for use, used in uses.items() if used == version])
            for version in sorted(self._versions(), key=self._used_at, reverse=True)
        ]

    def prune(self) -> list[str]:
        """Remove releases that are neither new nor in use; return their versions."""
        newest = sorted(self._versions(), key=self._used_at, reverse=True)
        current = self.in_use(CURRENT)
        kept = {*newest[:KEPT], current, self.in_use(STAGING)}
        kept.add(current and self.before(current))
        gone = [version for version in newest if version not in kept and not self._runs(version)]
        for version in gone:
            shutil.rmtree(self._releases / version)
        for unfinished in self._releases.glob(".*"):
            if time.time() - unfinished.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(unfinished)
        return gone

    def _versions(self) -> list[str]:
        return [path.name for path in self._releases.glob("[!.]*")]

    def _used_at(self, version: str) -> float:
        """Return when a release was made, or deployed: a deployment adds a link to it."""
        return (self._releases / version).stat().st_mtime

    def _runs(self, version: str) -> bool:
        """Return whether a process was started from a release: another instance, say."""
        python = os.fsencode(self._releases.resolve() / version / "bin/python")
        for process in self._proc.glob("[0-9]*"):
            try:
                if (process / "cmdline").read_bytes().split(b"\0")[0] == python:
                    return True
            except OSError:
                continue  # it ended meanwhile
        return False


def _version(link: Path) -> str | None:
    return link.resolve().name if link.is_symlink() and link.exists() else None
