"""The files beside the releases, in a tree that is made for another machine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from broadcasterd.config import load
from deployment.deploy import install
from deployment.installation import configure, link_to_current, uninstall
from deployment.instance import INSTANCES, PRODUCTION
from deployment.layout import SHARED, Layout
from deployment.releases import Releases
from deployment.units import NAMES, OF_STAGING

VERSION = "1.0"
COMMAND = "usr/bin/broadcasterd"
CATALOG = "usr/lib/systemd/catalog/broadcasterd.catalog"
DOCUMENTATION = "usr/share/doc/broadcasterd"
UNITS = "usr/lib/systemd/system"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return the layout of a tree, where no command can be run: none of systemd's is to be."""
    monkeypatch.setenv("PATH", "")
    return Layout(root=tmp_path)


def installed(layout: Layout) -> Path:
    """Install what passes for a release; return the tree."""
    release = layout.root / "usr/lib/broadcasterd/releases" / VERSION
    shared = {f"share/{target}" for target in SHARED.values()}
    for name in ("bin/broadcasterd", "doc/systemd.md", "systemd/broadcasterd.catalog", *shared):
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text(name)
    for name in NAMES:
        (release / "systemd" / name).touch()
    install(Releases(layout.here(layout.prefix)), VERSION)
    link_to_current(layout)
    return layout.root


def files(tree: Path) -> set[str]:
    """Return what is in a tree, but for directories."""
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if not path.is_dir()}


def names(directory: Path) -> set[str]:
    """Return the names of what is in a directory."""
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("name", INSTANCES)
def test_an_instance_gets_a_configuration_with_a_secret_that_is_its_own(
    name: str, layout: Layout
) -> None:
    instance = INSTANCES[name]
    configure(instance, layout)
    secret = layout.here(instance.secret)

    assert instance.secret == load(layout.here(instance.settings), {}).auth.secret_file
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_text().strip()) >= 64
    assert {instance.settings.name, instance.secret.name} == names(secret.parent)


def test_each_secret_is_made_at_random(tmp_path: Path) -> None:
    one, other = (Layout(root=tmp_path / name) for name in ("one", "other"))
    for layout in (one, other):
        configure(PRODUCTION, layout)

    assert one.here(PRODUCTION.secret).read_text() != other.here(PRODUCTION.secret).read_text()


def test_what_is_there_is_left_alone(layout: Layout) -> None:
    settings, secret = layout.here(PRODUCTION.settings), layout.here(PRODUCTION.secret)
    settings.parent.mkdir(parents=True)
    settings.write_text("# mine\n")
    secret.symlink_to("/not/mounted/yet")
    configure(PRODUCTION, layout)

    assert "# mine\n" == settings.read_text()
    assert "/not/mounted/yet" == str(secret.readlink())


def test_what_is_not_in_a_release_leads_into_the_current_one(
    layout: Layout,
) -> None:
    tree = installed(layout)

    assert "bin/broadcasterd" == (tree / COMMAND).read_text()
    assert "systemd/broadcasterd.catalog" == (tree / CATALOG).read_text()
    assert "doc/systemd.md" == (tree / DOCUMENTATION / "systemd.md").read_text()
    assert SHARED == {
        place: (tree / "usr/share" / place).read_text().removeprefix("share/") for place in SHARED
    }
    assert set(NAMES) == names(tree / UNITS)


def test_it_can_be_installed_over_an_older_one(layout: Layout) -> None:
    older = layout.root / DOCUMENTATION
    older.mkdir(parents=True)
    (older / "old.md").touch()
    tree = installed(layout)
    link_to_current(layout)

    assert older.is_symlink()
    assert {"systemd.md"} == names(tree / DOCUMENTATION)


def test_uninstall_leaves_configuration_and_state(layout: Layout) -> None:
    tree = installed(layout)
    configure(PRODUCTION, layout)
    (tree / "var/lib/broadcasterd").mkdir(parents=True)
    (tree / "var/lib/broadcasterd/histories").touch()
    others = f"{UNITS}/another.service"
    (tree / others).touch()

    assert {f"{UNITS}/{name}" for name in OF_STAGING.values()} <= files(tree)

    uninstall(layout)

    assert {
        "etc/broadcasterd/broadcasterd.toml",
        "etc/broadcasterd/secret",
        "var/lib/broadcasterd/histories",
        others,
    } == files(tree)


def test_nothing_to_uninstall_is_no_failure(layout: Layout) -> None:
    uninstall(layout)

    assert set() == files(layout.root)
