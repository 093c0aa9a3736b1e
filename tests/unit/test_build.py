"""The release that a checkout is. Its making is tested with the installation, in tests/systemd."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import broadcasterd
from deployment.build import CHECKOUT, DECLARED_IN, MADE_OF, Checkout, release
from deployment.layout import Layout
from deployment.releases import DeploymentError, Releases
from tests.support.tools import require

OTHERS = "0badcafe"
COMPILED = shutil.ignore_patterns("__pycache__")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what a release is made of."""
    copy = tmp_path / "checkout"
    for name in MADE_OF:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, copy / name, ignore=COMPILED)
        else:
            shutil.copyfile(CHECKOUT / name, copy / name)
    return copy


def there(prefix: Path, version: str, contents: str) -> Path:
    """Make something that passes for a release; return it."""
    path = prefix / "lib/broadcasterd/releases" / version
    (path / "bin").mkdir(parents=True)
    (path / "bin/broadcasterd").touch()
    (path / "contents").write_text(f"{contents}\n")
    return path


def test_the_version_stands_in_the_package_alone(checkout: Path) -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())

    assert broadcasterd.__version__ == Checkout().declared
    assert DECLARED_IN == settings["tool"]["hatch"]["version"]["path"]
    assert "version" not in settings["project"]

    (checkout / DECLARED_IN).write_text('"""No version."""\n')

    with pytest.raises(DeploymentError, match="no __version__"):
        _ = Checkout(checkout).declared


def test_a_copy_has_the_same_contents(checkout: Path) -> None:
    assert Checkout().contents == Checkout(checkout).contents


@pytest.mark.parametrize(
    "name", [*MADE_OF[:3], DECLARED_IN, "docs/systemd.md", "systemd/broadcasterd.service"]
)
def test_other_contents_are_noticed(name: str, checkout: Path) -> None:
    before = Checkout(checkout).contents
    with (checkout / name).open("a") as file:
        file.write("\n")

    assert before != Checkout(checkout).contents


def test_what_moved_is_noticed(checkout: Path) -> None:
    before = Checkout(checkout).contents
    (checkout / "docs/systemd.md").rename(checkout / "docs/systemd2.md")

    assert before != Checkout(checkout).contents


def commit_all(repository: Path) -> str:
    """Commit all that is there; return the commit."""
    git = ["git", "-C", str(repository), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init"], ["add", "--all"], ["commit", "--message=All"]):
        subprocess.run([*git, *command], capture_output=True, check=True)
    found = subprocess.run([*git, "rev-parse", "HEAD"], stdout=subprocess.PIPE, check=True)
    return found.stdout.decode().strip()


def test_a_release_is_of_a_commit_where_nothing_was_changed_since(checkout: Path) -> None:
    require("git")
    commit = commit_all(checkout)

    assert commit == Checkout(checkout).commit

    (checkout / DECLARED_IN).write_text("# Changed.\n")

    assert Checkout(checkout).commit is None


def test_somebody_elses_repository_around_it_says_nothing(checkout: Path) -> None:
    require("git")
    commit_all(checkout.parent)

    assert Checkout(checkout).commit is None


def test_what_was_compiled_is_no_part_of_the_contents(checkout: Path) -> None:
    before = Checkout(checkout).contents
    compiled = checkout / Path(DECLARED_IN).parent / "__pycache__/more.pyc"
    compiled.parent.mkdir(exist_ok=True)
    compiled.write_bytes(b"compiled")

    assert before == Checkout(checkout).contents


def test_a_checkout_has_the_version_that_it_declares(tmp_path: Path) -> None:
    checkout, releases = Checkout(), Releases(tmp_path)

    assert checkout.declared == checkout.version_beside(releases)

    there(tmp_path, checkout.declared, checkout.contents)

    assert checkout.declared == checkout.version_beside(releases)


def test_the_same_version_with_other_contents_is_another_release(tmp_path: Path) -> None:
    checkout = Checkout()
    there(tmp_path, checkout.declared, OTHERS)

    assert f"{checkout.declared}+{checkout.contents}" == checkout.version_beside(Releases(tmp_path))


def test_a_release_that_is_there_is_not_made_anew_nor_compared(tmp_path: Path) -> None:
    nothing = Checkout(tmp_path / "nothing")
    path = there(tmp_path / "usr", "1.0", OTHERS)
    before = sorted(path.rglob("*"))
    said: list[str] = []

    assert "1.0" == release(nothing, Layout(root=tmp_path), "1.0", said.append)
    assert (before, []) == (sorted(path.rglob("*")), said)


@pytest.mark.parametrize("version", ["../1.0", ".1", "1.0/2", "1 0", "-1"])
def test_what_cannot_be_a_version_is_refused(version: str, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="cannot be a version"):
        release(Checkout(), Layout(root=tmp_path), version, print)
    assert [] == [*tmp_path.iterdir()]


def test_a_release_that_cannot_be_made_leaves_nothing(checkout: Path, tmp_path: Path) -> None:
    """There is no lock of the build backend in this copy."""
    releases = tmp_path / "usr/lib/broadcasterd/releases"
    said: list[str] = []
    with pytest.raises(FileNotFoundError, match=r"requirements-build\.lock"):
        release(Checkout(checkout), Layout(root=tmp_path), None, said.append)

    assert [f"making release {broadcasterd.__version__}"] == said
    assert [] == [*releases.iterdir()]
