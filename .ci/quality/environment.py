"""The environment of a worktree: a thin layer over the checkout's where both ask for the same.

Whatever asks for something else gets an environment of its own, as its Makefile makes it. The
checkout's environments are read, and never written to.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import venv
from pathlib import Path

from quality.processes import QualityError, run

TOOLS = ".venv-tools"
CLIENTS = "tests/e2e/clients"


def prepare(tree: Path, checkout: Path, logs: Path) -> None:
    """Give a fresh worktree all that its tests and its checks need.

    Raises:
        QualityError: some of it cannot be had.

    """
    if _same("requirements-dev.lock", tree, checkout):
        layer(tree / ".venv", tree / "daemon")
    else:
        _make(".venv/.installed", tree, logs)
    for folder, lock in (
        (TOOLS, ".ci/requirements-tools.lock"),
        (f"{CLIENTS}/node_modules", f"{CLIENTS}/package-lock.json"),
    ):
        if not (tree / lock).exists():
            continue
        if not _same(lock, tree, checkout):
            _make(f"{folder}/.installed", tree, logs)
        elif (checkout / folder).is_dir():
            _link(checkout / folder, tree / folder)


def layer(environment: Path, sources: Path) -> None:
    """Make an environment that has the packages of the one that runs this, and other sources.

    Args:
        environment: where it is to be.
        sources: the directory of the package, which is installed from there.

    """
    venv.EnvBuilder(symlinks=True).create(environment)
    where = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", where))
    # A path that a .pth file adds is not searched for further ones: the editable install of the
    # checkout's own sources is left out by that.
    lines = [str(sources), sysconfig.get_path("purelib")]
    (packages / "broadcasterd.pth").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    old, new = (f"{root}/bin/python".encode() for root in (sys.prefix, environment))
    for script in (Path(sys.prefix) / "bin").iterdir():
        copy = environment / "bin" / script.name
        if copy.exists() or script.is_symlink() or script.name.lower().startswith("activate"):
            continue
        text = script.read_bytes()
        if text.startswith(b"#!"):
            copy.write_bytes(text.replace(old, new, 1))
            shutil.copymode(script, copy)
        else:
            copy.symlink_to(script)
    (environment / ".installed").touch()


def _same(lock: str, tree: Path, checkout: Path) -> bool:
    files = [root / lock for root in (tree, checkout)]
    return all(file.exists() for file in files) and len({file.read_bytes() for file in files}) == 1


def _make(target: str, tree: Path, logs: Path) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "environment.log"
    done = run(["make", f"PYTHON={sys.executable}", target], directory=tree, log=log)
    if done.status:
        raise QualityError(f"its environment cannot be made ({log}): {done.last_line}")


def _link(folder: Path, copy: Path) -> None:
    """Have all that is in a folder under another path, too.

    Not by a link to the folder: Git ignores folders of this name, and no links.
    """
    copy.mkdir(parents=True)
    for entry in folder.iterdir():
        (copy / entry.name).symlink_to(entry)
