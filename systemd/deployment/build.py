"""A release made of a checkout: an environment of its own, which can be moved as it is.

The environment has exactly what ``requirements.lock`` names, and the package in the release's
version; beside it there are the units, the journal's catalog and the documentation.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from deployment.commands import Say, run
from deployment.documents import BESIDE, DOCUMENTS, documents
from deployment.layout import Layout
from deployment.releases import DeploymentError, Releases
from deployment.units import SERVICE, SOCKET, placed, units

CHECKOUT = Path(__file__).parents[2]

DECLARED = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
DECLARED_IN = "daemon/broadcasterd/__init__.py"

A_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]*")
"""PEP 440 is stricter, and the build backend keeps to it. This much names a directory safely."""

CATALOG = "systemd/broadcasterd.catalog"
LAUNCHER = "systemd/launcher"
OF_THE_WHEEL = ("LICENSE", "README.md", "pyproject.toml", "daemon", "config/share")
MADE_OF = (
    *OF_THE_WHEEL,
    *("requirements.lock", DOCUMENTS, *BESIDE, CATALOG, LAUNCHER),
    *(f"systemd/{unit}" for unit in (SERVICE, SOCKET)),
    *(f"systemd/deployment/{module}.py" for module in ("build", "documents", "layout", "units")),
)
"""The files that decide on the contents of a release, besides the version of Python."""

FROM_3_12_ON = "coredis/_py_312_typing.py"
"""A module in the syntax of Python 3.12, which is imported from there on only."""

DIGITS = 8
MADE = ".made-of"
"""What an environment that is kept was made of; it is written last."""

COMPILED = "__pycache__"
MANUALS = "share/man"
QUIET = ("--quiet", "--disable-pip-version-check")

Run = Callable[..., str]
"""Runs a command; returns what it prints."""


class Checkout:
    """The sources of a release.

    Args:
        root: the project's directory.

    """

    def __init__(self, root: Path = CHECKOUT) -> None:
        self._root = root

    @property
    def declared(self) -> str:
        """The version that the package declares.

        Raises:
            DeploymentError: it declares none.

        """
        found = DECLARED.search((self._root / DECLARED_IN).read_text("utf-8"))
        if found is None:
            raise DeploymentError(f"{DECLARED_IN} has no __version__")
        return found[1]

    @property
    def contents(self) -> str:
        """The first hexadecimal digits of a hash of all that a release is made of."""
        digest = hashlib.sha256(platform.python_version().encode())
        for path in self._files():
            text = path.read_bytes()
            name = path.relative_to(self._root).as_posix()
            digest.update(f"\n{name} {len(text)}\n".encode())
            digest.update(text)
        return digest.hexdigest()[:DIGITS]

    @property
    def commit(self) -> str | None:
        """The commit of these sources; ``None`` where they are no commit, or not all of one."""
        git = ("git", "--no-optional-locks", "-C", self._root)
        if not (self._root / ".git").exists():  # it may lie in somebody else's repository
            return None
        try:
            changed = run(*git, "status", "--porcelain", "--", *MADE_OF)
            return None if changed else run(*git, "rev-parse", "HEAD").strip()
        except (DeploymentError, OSError):
            return None

    def version_beside(self, releases: Releases) -> str:
        """Return the version under which this checkout is, or will be, among other releases.

        It is the declared one, unless a release of that version has other contents.
        """
        declared, contents = self.declared, self.contents
        same = releases.contents(declared) in {None, contents}
        return declared if same else f"{declared}+{contents}"

    def make(self, version: str, stage: Path, layout: Layout) -> None:
        """Make a release in a directory.

        Args:
            version: of the release.
            stage: an empty directory, from where the release will be moved to its place.
            layout: has the place.

        Raises:
            DeploymentError: a step failed.

        """
        place = layout.library / "releases" / version
        self._make_environment(version, stage)
        _forget_the_stage(stage)
        _compile(stage / "lib", place / "lib")
        _compress(stage / MANUALS)
        shutil.copyfile(self._root / LAUNCHER, stage / "bin/broadcasterd")
        (stage / "bin/broadcasterd").chmod(0o755)
        for name, document in documents(self._root).items():
            path = stage / "doc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(document)
        texts = units(self._root / "systemd", layout)
        catalog = self._root / CATALOG
        texts[catalog.name] = placed(catalog.read_text("utf-8"), layout)
        (stage / "systemd").mkdir()
        for name, text in texts.items():
            (stage / "systemd" / name).write_text(text, "utf-8")
        (stage / "contents").write_text(f"{self.contents}\n", "utf-8")
        if self.commit is not None:
            (stage / "commit").write_text(f"{self.commit}\n", "utf-8")

    def _files(self) -> Iterator[Path]:
        for name in MADE_OF:
            path = self._root / name
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and COMPILED not in file.parts:
                    yield file

    def _make_environment(self, version: str, stage: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            # Leftovers of an interrupted command are removed with the rest.
            run_there = partial(run, environment=os.environ | {"TMPDIR": scratch})
            backend = self._environment(".venv-build", ".ci/requirements-build.lock", run_there)
            pip = partial(run_there, backend / "bin/python", "-m", "pip")
            wheel = self._make_wheel(pip, version, Path(scratch))
            locked = self._environment(".venv-release", "requirements.lock", run_there, pip)
            shutil.copytree(
                locked,
                stage,
                symlinks=True,
                ignore=shutil.ignore_patterns(MADE),
                dirs_exist_ok=True,
            )
            there = ("--python", stage / "bin/python")
            pip(*there, "install", *QUIET, "--no-compile", "--no-deps", wheel)

    def _make_wheel(self, pip: Run, version: str, scratch: Path) -> Path:
        """Return a wheel of the package as it would be if it declared this version."""
        source = scratch / "source"
        source.mkdir()
        for name in OF_THE_WHEEL:
            path = self._root / name
            if path.is_dir():
                shutil.copytree(path, source / name, ignore=shutil.ignore_patterns(COMPILED))
            else:
                shutil.copy(path, source)
        module = source / DECLARED_IN
        declared = DECLARED.sub(f'__version__ = "{version}"', module.read_text("utf-8"))
        module.write_text(declared, "utf-8")
        pip("wheel", *QUIET, "--no-deps", "--no-build-isolation", "--wheel-dir", scratch, source)
        [wheel] = scratch.glob("*.whl")
        return wheel

    def _environment(self, name: str, locked: str, run_there: Run, pip: Run | None = None) -> Path:
        """Return an environment of exactly what a lock names.

        It is kept in the checkout: the next release needs neither an index nor the time for it.

        Args:
            name: of its directory.
            locked: the name of the lock.
            run_there: runs a command.
            pip: of another environment; without it, this one has its own.

        """
        lock = self._root / locked
        environment = (self._root / name).resolve()  # venv(1) clears no link
        python = environment / "bin/python"
        made_of = environment / MADE
        wanted = f"# Python {sys.version}\n{lock.read_text('utf-8')}"
        if not made_of.exists() or made_of.read_text("utf-8") != wanted:
            own = [] if pip is None else ["--without-pip"]
            run_there(sys.executable, "-m", "venv", "--clear", *own, environment)
            install = pip and partial(pip, "--python", python, "install", "--no-compile")
            install = install or partial(run_there, python, "-m", "pip", "install")
            install(*QUIET, "--require-hashes", "-r", lock)
            made_of.write_text(wanted, "utf-8")
        return environment


def release(checkout: Checkout, layout: Layout, version: str | None, say: Say) -> str:
    """Make sure that there is a release; return its version.

    An existing release is never made anew: a running daemon may import from it at any time.

    Args:
        checkout: the sources of the release.
        layout: has the release's place.
        version: an existing release, or else a name for this checkout; without one it is the
            checkout's own.
        say: is told if the release has to be made.

    Raises:
        DeploymentError: it cannot be made.

    """
    releases = Releases(layout.here(layout.prefix))
    version = version or checkout.version_beside(releases)
    if not A_VERSION.fullmatch(version):
        raise DeploymentError(f"{version!r} cannot be a version")
    if version not in releases:
        say(f"making release {version}")
        with releases.staged(version) as stage:
            checkout.make(version, stage, layout)
    return version


def _forget_the_stage(stage: Path) -> None:
    """Remove the files for this place only: scripts with its path in them, and a note of it."""
    for script in (stage / "bin").iterdir():
        if not script.is_symlink():
            script.unlink()
    settings = stage / "pyvenv.cfg"
    kept = [
        line
        for line in settings.read_text("utf-8").splitlines(keepends=True)
        if not line.startswith("command = ")
    ]
    settings.write_text("".join(kept), "utf-8")


def _compress(manuals: Path) -> None:
    """Compress the man pages, as packages of distributions have them."""
    for page in [path for path in manuals.rglob("*") if path.is_file()]:
        page.with_name(f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()


def _compile(library: Path, place: Path) -> None:
    """Compile all modules once and for all: nobody compares them with their sources later.

    That some are compiled already is no reason to leave them so: pip imports some that it installs.
    """
    if sys.version_info < (3, 12):
        for module in library.glob(f"python3.*/site-packages/{FROM_3_12_ON}"):
            module.unlink()
    compiler = [sys.executable, "-m", "compileall", "-q", "-f", "-j", "0"]
    run(*compiler, "--invalidation-mode", "unchecked-hash", "-d", place, library)
