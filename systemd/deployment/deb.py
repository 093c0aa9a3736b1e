"""A package for Debian and its like, made of a release.

dpkg owns the release in ``packaged``, and removes its files on an upgrade while the old daemon
still runs. So postinst makes a release like any other of it, which shares the files on disk.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from deployment.build import CHECKOUT
from deployment.commands import run
from deployment.files import link_or_copy, remove
from deployment.installation import configure, link_to_current
from deployment.instance import PRODUCTION
from deployment.layout import Layout
from deployment.releases import DeploymentError

CONTROL = CHECKOUT / "systemd/deb"
SCRIPTS = ("postinst", "prerm", "postrm")

A_VERSION = re.compile(r"[0-9][0-9A-Za-z.+~]*")
"""What both dpkg, deb-version(7), and a release's name can be."""

PRE_RELEASE = re.compile(r"(?<=[0-9])[.]?(?=(?:a|b|rc|dev)[0-9])")
"""The place in a version of PEP 440 where dpkg needs a tilde: else it is newer than the final."""


def deb(release: Path, into: Path) -> Path:
    """Make a package of a release that was made for ``/usr``; return it.

    Args:
        release: has the version as its name.
        into: the directory of the package.

    Raises:
        DeploymentError: the version is none for dpkg, or the package cannot be made.

    """
    version = PRE_RELEASE.sub("~", release.name)
    if not A_VERSION.fullmatch(version):
        raise DeploymentError(f"{release.name!r} cannot be the version of a package")
    architecture = run("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        _lay_out(release, Layout(root=tree))
        texts = {
            "DEBIAN_VERSION": version,
            "VERSION": release.name,
            "ARCHITECTURE": architecture,
            "KIB": f"{_size(tree) // 1024}",
            "PYTHON": f"3.{sys.version_info.minor}",
            "NEXT_PYTHON": f"3.{sys.version_info.minor + 1}",
        }
        (tree / "DEBIAN").mkdir()
        for name in ("control", *SCRIPTS):
            path = tree / "DEBIAN" / name
            text = (CONTROL / name).read_text("utf-8")
            path.write_text(re.sub("@([A-Z_]+)@", lambda found: texts[found[1]], text), "utf-8")
            path.chmod(0o755 if name in SCRIPTS else 0o644)
        (tree / "DEBIAN/conffiles").write_text(f"{PRODUCTION.settings}\n", "utf-8")
        into.mkdir(parents=True, exist_ok=True)
        package = into / f"broadcasterd_{version}_{architecture}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zzstd", "-z9", "--build", tree, package)
    return package


def _lay_out(release: Path, layout: Layout) -> None:
    """Lay out the files of the package: those of an installation, but no release in its place."""
    packaged = layout.here(layout.packaged)
    shutil.copytree(release, packaged, symlinks=True, copy_function=link_or_copy)
    remove(packaged / "before")
    shutil.copyfile(CHECKOUT / "LICENSE", packaged / "doc/copyright")
    layout.here(layout.units).mkdir(parents=True)
    for unit in (packaged / "systemd").glob("*.s*"):
        shutil.copyfile(unit, layout.here(layout.units) / unit.name)
    link_to_current(layout)
    configure(PRODUCTION, layout)
    layout.here(PRODUCTION.secret).unlink()  # each machine makes its own


def _size(tree: Path) -> int:
    return sum(path.lstat().st_size for path in tree.rglob("*") if not path.is_dir())
