"""The places of what is installed, on this machine or in a tree that is made for another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

THIS_MACHINE = Path("/")


@dataclass(frozen=True, slots=True)
class Layout:
    """The places below a prefix, as the installed files name them.

    Attributes:
        prefix: absolute.
        root: the directory that is to be the machine's ``/``.

    """

    prefix: Path = Path("/usr")
    root: Path = THIS_MACHINE

    def here(self, place: Path) -> Path:
        """Return the path of a place, as this program has to name it."""
        return self.root / place.relative_to("/")

    @property
    def is_this_machine(self) -> bool:
        """Whether this machine's systemd is to know about the files."""
        return self.root == THIS_MACHINE

    @property
    def library(self) -> Path:
        """The directory of the releases, and of the links to them."""
        return self.prefix / "lib/broadcasterd"

    @property
    def packaged(self) -> Path:
        """The release that a package brings, from which the machine makes one among the others."""
        return self.library / "packaged"

    @property
    def command(self) -> Path:
        """The command of the current release."""
        return self.prefix / "bin/broadcasterd"

    @property
    def staging_command(self) -> Path:
        """The command of staging's release."""
        return self.library / "staging/bin/broadcasterd"

    @property
    def units(self) -> Path:
        """The directory of the units."""
        return self.prefix / "lib/systemd/system"

    @property
    def catalog(self) -> Path:
        """The explanations of the journal's messages."""
        return self.prefix / "lib/systemd/catalog/broadcasterd.catalog"

    @property
    def documentation(self) -> Path:
        """The directory of the documentation."""
        return self.prefix / "share/doc/broadcasterd"
