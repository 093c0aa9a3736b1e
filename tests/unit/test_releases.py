"""Links to releases: moved in one step, whenever the mover dies; and releases that are removed."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from deployment.releases import ABANDONED_S, CURRENT, KEPT, STAGING, DeploymentError, Releases

LIBRARY = "lib/broadcasterd"


class Died(BaseException):
    """Nothing catches it."""


class Prefix:
    """A prefix with releases, the first of which is the oldest."""

    def __init__(self, path: Path, *versions: str) -> None:
        self.path = path
        self.proc = path / "proc"
        self.releases = Releases(path, proc=self.proc)
        for age, version in enumerate(reversed(versions)):
            release = path / LIBRARY / "releases" / version
            (release / "bin").mkdir(parents=True)
            (release / "bin/broadcasterd").touch()
            (release / "systemd").mkdir()
            for unit in ("broadcasterd.service", "broadcasterd@staging.service"):
                (release / "systemd" / unit).write_text(version)
            os.utime(release, (time.time() - age,) * 2)

    def use(self, *versions: str) -> None:
        """Have production use one after another."""
        for version in versions:
            before = self.releases.in_use(CURRENT)
            self.releases.use(CURRENT, version)
            if before:
                self.releases.note_before(version, before)

    def unit(self, name: str) -> str:
        return (self.path / "lib/systemd/system" / name).read_text()

    def left(self) -> set[str]:
        return {path.name for path in (self.path / LIBRARY / "releases").iterdir()}


def test_each_link_has_units_of_its_own(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path, "1", "2")
    prefix.releases.use(CURRENT, "1")
    prefix.releases.use(STAGING, "2")

    assert ("1", "2") == (prefix.releases.in_use(CURRENT), prefix.releases.in_use(STAGING))
    assert "1" == prefix.unit("broadcasterd.service")
    assert "2" == prefix.unit("broadcasterd@staging.service")


@pytest.mark.parametrize("operation", ["replace", "symlink_to", "unlink", "chmod"])
def test_who_dies_before_the_link_is_moved_leaves_the_old_one(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = Prefix(tmp_path, "1", "2")
    prefix.use("1")

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Path, operation, die)
        with pytest.raises(Died):
            prefix.use("2")

    assert "1" == prefix.releases.in_use(CURRENT)

    prefix.use("2")

    assert "2" == prefix.releases.in_use(CURRENT)


def test_nothing_is_switched_to_what_is_not_there(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path, "1", "2")
    prefix.use("1")

    with pytest.raises(DeploymentError, match="no release 3; there are: 1, 2"):
        prefix.use("3")
    assert "1" == prefix.releases.in_use(CURRENT)


def test_the_way_back_goes_from_release_to_release(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path, "1", "2", "3")
    prefix.use("1", "2", "3")
    way: list[str | None] = ["3"]
    while version := way[-1]:
        way.append(prefix.releases.before(version))

    assert ["3", "2", "1", None] == way


def test_a_release_that_was_removed_is_no_way_back(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path, "1", "2")
    prefix.use("1", "2")
    shutil.rmtree(prefix.releases.path("1"))

    assert prefix.releases.before("2") is None


def test_the_last_way_back_is_known_also_when_the_release_is_gone(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path, "1", "2", "3")
    assert prefix.releases.last_rollback() is None

    for version in ("3", "2"):
        prefix.releases.note_rollback(version)
    shutil.rmtree(prefix.releases.path("2"))

    last = prefix.releases.last_rollback()
    assert last is not None
    assert "2" == last.version
    assert abs(time.time() - last.at) < ABANDONED_S


def test_a_release_is_there_once_it_is_whole(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    with releases.staged("1") as stage:
        (stage / "bin").mkdir()
        (stage / "bin/broadcasterd").touch()
        (stage / "contents").write_text("0badcafe\n")

        assert "1" not in releases
        assert releases.contents("1") is None
    assert "1" in releases
    assert "0badcafe" == releases.contents("1")
    assert ["1"] == [path.name for path in stage.parent.iterdir()]


def test_everybody_may_look_into_a_release(tmp_path: Path) -> None:
    with Releases(tmp_path).staged("1") as stage:
        assert 0o755 == stat.S_IMODE(stage.stat().st_mode)


def test_a_release_that_could_not_be_made_is_removed(tmp_path: Path) -> None:
    def die_half_way() -> None:
        with Releases(tmp_path).staged("1") as stage:
            (stage / "half").touch()
            raise Died

    with pytest.raises(Died):
        die_half_way()
    assert [] == [*(tmp_path / LIBRARY / "releases").iterdir()]


def test_one_switches_at_a_time(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path, "1")
    other = Releases(tmp_path)
    with (
        prefix.releases.locked(),
        pytest.raises(DeploymentError, match="under way"),
        other.locked(),
    ):
        pass
    with other.locked():
        pass


def test_without_an_installation_there_is_nothing_to_lock(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="nothing is installed"), Releases(tmp_path).locked():
        pass


def test_what_is_new_or_in_use_is_kept(tmp_path: Path) -> None:
    old = ["staged", "gone", "before", "current", "runs"]
    new = [f"new{number}" for number in range(KEPT)]
    prefix = Prefix(tmp_path, *old, *new)
    prefix.releases.use(STAGING, "staged")
    prefix.releases.use(CURRENT, "current")
    noted = prefix.releases.path("current")
    (noted / "before").symlink_to("../before")
    os.utime(noted, (0, 0))
    process = prefix.proc / "42"
    process.mkdir(parents=True)
    (process / "cmdline").write_bytes(
        b"\0".join([bytes(prefix.releases.path("runs") / "bin/python"), b"-P", b""])
    )

    assert ["gone"] == prefix.releases.prune()
    assert {"staged", "before", "current", "runs", *new} == prefix.left()


def test_what_was_never_finished_is_removed_when_nobody_can_be_at_it(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path, "1")
    for name, age in ((".2-abandoned", 2 * ABANDONED_S), (".2-made-now", 0.0)):
        directory = tmp_path / LIBRARY / "releases" / name
        directory.mkdir()
        os.utime(directory, (time.time() - age,) * 2)
    prefix.releases.prune()

    assert {"1", ".2-made-now"} == prefix.left()
