"""The places of what is installed, on this machine or in a tree that is made for another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

THIS_MACHINE = Path("/")

OF_ZSH = "zsh/site-functions/_broadcasterd"
SHARED = {
    "man/man1/broadcasterd.1.gz": "man/man1/broadcasterd.1.gz",
    "man/man5/broadcasterd.toml.5.gz": "man/man5/broadcasterd.toml.5.gz",
    "bash-completion/completions/broadcasterd": "bash-completion/completions/broadcasterd",
    "fish/vendor_completions.d/broadcasterd.fish": "fish/vendor_completions.d/broadcasterd.fish",
    OF_ZSH: OF_ZSH,
    "zsh/vendor-completions/_broadcasterd": OF_ZSH,  # where Debian's zsh looks, below /usr
}
"""What has its place below ``share``, and what it is below that of a release."""


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
    def shared(self) -> dict[Path, Path]:
        """The man pages, and what shells complete the command with: links and their targets."""
        current = self.library / "current"
        return {
            self.prefix / "share" / place: current / "share" / target
            for place, target in SHARED.items()
        }

    @property
    def documentation(self) -> Path:
        """The directory of the documentation."""
        return self.prefix / "share/doc/broadcasterd"
