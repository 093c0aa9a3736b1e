"""`make install` into a directory: the place of each file, and that it works wherever it is put."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import broadcasterd
from tests.support.documents import broken_links
from tests.support.service import PROJECT, make

CONFIGURATION = "etc/broadcasterd/broadcasterd.toml"
SECRET = "etc/broadcasterd/secret"
NAMED = "99.0+local"
UNCHECKED_HASH = bytes([1, 0, 0, 0])
"""The flags of a .pyc file that is taken as it is: PEP 552."""


def version(command: Path) -> str:
    """Return what ``broadcasterd --version`` prints."""
    return subprocess.check_output([command, "--version"], text=True)


def files(tree: Path) -> set[str]:
    """Return the files below, but those of releases."""
    found = (path.relative_to(tree).as_posix() for path in tree.rglob("*") if not path.is_dir())
    return {path for path in found if "/releases/" not in path}


def test_the_source_distribution_has_all_of_the_repository(sdist: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path], check=True)
    git = ["git", f"--git-dir={tmp_path}", f"--work-tree={PROJECT}"]  # what knows no file yet
    listing = [*git, "ls-files", "--others", "--exclude-standard", "-z"]
    known = subprocess.check_output(listing, cwd=PROJECT, text=True).rstrip("\0").split("\0")
    files = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}

    assert {*known, "PKG-INFO"} == {path for path in files if not path.startswith(".venv-")}


def test_each_release_has_a_place_of_its_own_and_one_is_current(tree: Path) -> None:
    library = tree / "usr/lib/broadcasterd"

    assert f"releases/{broadcasterd.__version__}" == (library / "current").readlink().as_posix()
    assert [broadcasterd.__version__] == [path.name for path in (library / "releases").iterdir()]


def test_a_release_holds_no_trace_of_where_it_was_made(tree: Path) -> None:
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]

    assert [] == [path for path in files if bytes(tree) in path.read_bytes()]


def test_what_is_compiled_is_never_compared_with_its_source(tree: Path) -> None:
    modules = {path for path in tree.rglob("*.py") if "/releases/" in path.as_posix()}
    compiled = [path for path in tree.rglob("*.pyc") if "/releases/" in path.as_posix()]

    assert len(modules) == len(compiled)
    assert {UNCHECKED_HASH} == {path.read_bytes()[4:8] for path in compiled}


def test_the_documentation_that_a_unit_or_the_catalog_names_is_there(tree: Path) -> None:
    named = set()
    for path in (tree / "usr/lib/broadcasterd/current/systemd").iterdir():
        named |= set(re.findall("(?m)^Documentation[=:] ?file:/(.+)$", path.read_text()))

    assert named
    assert [] == [place for place in named if not (tree / place).is_file()]


@pytest.mark.parametrize("page", ["man1/broadcasterd.1.gz", "man5/broadcasterd.toml.5.gz"])
def test_the_man_pages_are_installed_as_they_are_written(page: str, tree: Path) -> None:
    installed = gzip.decompress((tree / "usr/share/man" / page).read_bytes())

    assert (PROJECT / "config/share/man" / page.removesuffix(".gz")).read_bytes() == installed


def test_completions_are_where_the_shells_look_for_them(tree: Path) -> None:
    written = [
        path
        for path in (PROJECT / "config/share").rglob("*broadcasterd*")
        if "man" not in path.parts
    ]

    assert len(written) == 3
    for path in written:
        installed = tree / "usr/share" / path.relative_to(PROJECT / "config/share")
        assert path.read_bytes() == installed.read_bytes()
    assert (tree / "usr/share/zsh/vendor-completions/_broadcasterd").exists(), "Debian's place"


def test_the_links_of_the_documentation_lead_somewhere(tree: Path) -> None:
    directory = tree / "usr/share/doc/broadcasterd"
    found = [*directory.resolve().rglob("*.md")]

    assert found
    assert [] == [(path.name, link) for path in found for link in broken_links(path)]


def test_the_command_works_from_where_it_happens_to_be(tree: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "--archive", "--link", tree / "usr", tmp_path / "moved"], check=True)

    expected = f"broadcasterd {broadcasterd.__version__}\n"

    assert expected == version(tree / "usr/bin/broadcasterd")
    assert expected == version(tmp_path / "moved/bin/broadcasterd")


def test_the_working_directory_has_no_say(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "broadcasterd.py").write_text("raise SystemExit('not that one')")
    done = subprocess.run([tree / "usr/bin/broadcasterd", "--version"], cwd=tmp_path, check=False)

    assert 0 == done.returncode


def test_a_running_daemon_stays_with_its_release(tree: Path) -> None:
    """The link is followed by the command, not by Python, for the modules yet to be imported."""
    traced = subprocess.run(
        [tree / "usr/bin/broadcasterd", "--help"],
        capture_output=True,
        env={"PATH": os.defpath, "PYTHONVERBOSE": "1"},
        check=True,
    )

    assert b"/current/" not in traced.stderr
    assert f"/releases/{broadcasterd.__version__}/".encode() in traced.stderr


@pytest.fixture(scope="module")
def local(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree with the usual prefix, and a configuration that was there before.

    It is made after the other one, with what that one has left in the checkout.
    """
    tree = tmp_path_factory.mktemp("local")
    (tree / CONFIGURATION).parent.mkdir(parents=True)
    (tree / CONFIGURATION).write_text("# mine\n")
    make("install", f"DESTDIR={tree}", f"VERSION={NAMED}")
    return tree


def test_a_configuration_that_is_there_stays(local: Path) -> None:
    assert "# mine\n" == (local / CONFIGURATION).read_text()


def test_the_prefix_is_everywhere(local: Path) -> None:
    units = local / "usr/local/lib/systemd/system"

    assert ["etc", "usr"] == sorted(path.name for path in local.iterdir())
    assert ["local"] == [path.name for path in (local / "usr").iterdir()]
    assert "ExecStart=/usr/local/bin/broadcasterd " in (units / "broadcasterd.service").read_text()
    staging = (units / "broadcasterd@staging.service").read_text()

    assert "ExecStart=/usr/local/lib/broadcasterd/staging/bin/broadcasterd " in staging


def test_a_release_says_what_it_was_named(local: Path) -> None:
    [package] = (local / "usr/local/lib/broadcasterd/current").glob("lib/*/*/broadcasterd")

    assert f"broadcasterd {NAMED}\n" == version(local / "usr/local/bin/broadcasterd")
    assert f'__version__ = "{NAMED}"' in (package / "__init__.py").read_text()


def test_a_release_that_is_there_is_not_made_anew(tree: Path, local: Path) -> None:
    named = [f"DESTDIR={local}", f"VERSION={NAMED}"]

    releases = [
        tree / "usr/lib/broadcasterd/releases",
        local / "usr/local/lib/broadcasterd/releases",
    ]
    before = [(path, path.stat().st_mtime_ns) for each in releases for path in each.rglob("*")]

    assert "making" not in make("release", f"DESTDIR={tree}", "PREFIX=/usr")
    assert "making" not in make("release", *named)
    assert before == [
        (path, path.stat().st_mtime_ns) for each in releases for path in each.rglob("*")
    ]


def test_uninstall_leaves_the_configuration_alone(local: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"  # the others need theirs
    shutil.copytree(local, copy, symlinks=True, copy_function=os.link)
    make("uninstall", f"DESTDIR={copy}")

    assert {CONFIGURATION, SECRET} == files(copy)
