"""The report on a rollback: what it has, and that a reason is taken as it was written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployment.analysis import analyse
from deployment.layout import Layout
from deployment.releases import CURRENT, DeploymentError, Releases
from tests.support.tools import ROOT

AWKWARD = (
    """it's "slow": $HOME $(shell touch here) $(touch here) `touch here` $$ \\n; touch here é"""
)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """Install 1.0, after 2.0 was taken back."""
    releases = Releases(tmp_path / "usr")
    release = tmp_path / "usr/lib/broadcasterd/releases/1.0"
    for name in ("bin", "systemd"):
        (release / name).mkdir(parents=True)
    (release / "bin/broadcasterd").touch()
    releases.use(CURRENT, "1.0")
    releases.note_rollback("2.0")
    return releases


def test_it_has_both_releases_the_reason_and_says_that_there_is_no_journal(
    releases: Releases, tmp_path: Path
) -> None:
    written = analyse(releases, Layout(root=tmp_path), "too slow\nby far", tmp_path / "build")
    text = written.read_text()

    assert "release before:  2.0\nrelease after:   1.0\n" in text
    assert "    too slow\n    by far\n" in text
    assert "    there is no systemd here, and so no journal\n" in text


def test_where_nothing_was_taken_back_it_says_so(tmp_path: Path) -> None:
    written = analyse(Releases(tmp_path), Layout(root=tmp_path), "too slow", tmp_path)

    assert "release before:  not known" in written.read_text()
    assert "release after:   none is installed" in written.read_text()


@pytest.mark.parametrize("reason", ["", " \n"])
def test_without_a_reason_there_is_no_report(
    reason: str, releases: Releases, tmp_path: Path
) -> None:
    with pytest.raises(DeploymentError, match="REASON="):
        analyse(releases, Layout(root=tmp_path), reason, tmp_path / "build")

    assert not (tmp_path / "build").exists()


def test_neither_make_nor_a_shell_reads_anything_into_a_reason(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "systemd", tmp_path / "systemd")
    done = subprocess.run(
        ["make", f"SYSTEM_PYTHON={sys.executable}", "rollback-report", f"REASON={AWKWARD}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    [written] = (tmp_path / "build").iterdir()
    assert f"\n    {AWKWARD}\n" in written.read_text()
    assert not (tmp_path / "here").exists()


def test_make_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", f"SYSTEM_PYTHON={sys.executable}", "rollback-report"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "FAILED: say REASON=" in done.stdout
