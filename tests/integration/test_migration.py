"""From one commit to another: what is measured, what is refused, and what is never touched.

In a scratch repository of the project, with real worktrees; of the tests there is one small file.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from quality.report import read
from tests.support.container import SOON_S, until
from tests.support.hooks import Checkout
from tests.support.tools import require

pytestmark = pytest.mark.slow

TINY = "tests/unit/test_tiny.py"
CONFTEST = "tests/conftest.py"
"""Of a suite that needs no fixtures: to import what the project's own imports takes two seconds."""

WIRE = "daemon/broadcasterd/core/wire.py"
SUITE = """\
from broadcasterd.core.event import Event
from broadcasterd.core.wire import encode_block

def test_an_event_has_its_data():
    assert b"data: 7\\n" in encode_block(Event("7"))
def test_an_event_has_its_type():
    assert b"event: seven\\n" in encode_block(Event("7", "seven"))
"""
HANGING = """\
import os, time
def test_that_hangs():
    with open({there!r}, "w") as there:
        there.write(str(os.getpid()))
    time.sleep(600)
"""


class Project:
    """The project in a repository of its own, and commits that are good, better, bad, or hang."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.checkout = Checkout.make_without_hooks(directory)
        self.root = self.checkout.directory
        self.folders = directory / "folders"
        self.folders.mkdir()
        self.commit({TINY: SUITE, CONFTEST: ""}, "good")
        self.commit({TINY: f"{SUITE}def test_one_more(): pass\n"}, "better")
        wire = self.checkout.read(WIRE)
        assert 'else f"event: {' in wire
        self.commit({WIRE: wire.replace('else f"event: {', 'else f"evnt: {')}, "bad")
        self.hanging = directory / "hanging"
        self.commit({WIRE: wire, TINY: HANGING.format(there=str(self.hanging))}, "hanging")
        self.checkout.git("checkout", "main")

    def commit(self, files: dict[str, str], branch: str) -> None:
        self.checkout.git("checkout", "-b", branch)
        self.checkout.stage(files)
        self.checkout.git("commit", f"--message={branch}")

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Return how its own program is started, and with what environment."""
        command = [sys.executable, "-m", "quality", *arguments]
        python_path = f"{self.root / '.ci'}:{self.root}"
        places = {"PYTHONPATH": python_path, "TMPDIR": str(self.folders)}
        return command, {**self.checkout.environment, **places}

    def quality(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command, environment = self.command(*arguments)
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def measure(self, what: str, ref: str) -> None:
        done = self.quality(what, "--ref", ref, "--tests", TINY, "--only", "tests")
        assert done.returncode == 0, done.stderr

    def state(self) -> object:
        """Return all that is not to change: commits, branches, index, files; nor worktrees."""
        git = self.root / ".git"
        known = self.checkout.git("ls-files", "--others", "--cached", "--exclude-standard")
        return (
            self.checkout.git("for-each-ref"),
            self.checkout.git("worktree", "list"),
            [(git / name).read_bytes() for name in ("HEAD", "index")],
            {name: sha256((self.root / name).read_bytes()).digest() for name in known.split()},
            [*self.folders.iterdir()],
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make the repository that all tests here share, and measure its good commit as baseline."""
    require("git")
    project = Project(tmp_path_factory.mktemp("migration"))
    project.measure("baseline", "good")
    return project


@pytest.fixture
def unchanged(project: Project) -> Callable[[], None]:
    """Return what fails where anything of the repository is not as it was, changes included."""
    project.checkout.stage({"README.md": "staged\n"})
    project.checkout.write({"LICENSE": "changed\n"})
    before = project.state()

    def check() -> None:
        assert before == project.state()
        project.checkout.git("reset", "--hard")

    return check


def test_what_is_as_good_may_take_over(project: Project, unchanged: Callable[[], None]) -> None:
    project.measure("candidate", "better")
    unchanged()
    done = project.quality("compare", "--only", "tests")

    assert done.returncode == 0, done.stdout
    assert "accepted" == done.stdout.splitlines()[-1]
    [tests] = [line for line in done.stdout.splitlines() if line.startswith("tests ")]
    assert "2 of 2 passed (100.0 %)" in tests
    assert "3 of 3 passed (100.0 %)" in tests


def test_a_planted_regression_is_refused(project: Project, unchanged: Callable[[], None]) -> None:
    project.measure("candidate", "bad")
    unchanged()
    done = project.quality("compare", "--only", "tests")

    assert done.returncode == 1, done.stdout
    assert "REFUSED: tests" == done.stdout.splitlines()[-1]
    candidate = read(project.root / "build/migration/candidate.json")
    assert ["tests.unit.test_tiny::test_an_event_has_its_type"] == [
        *(candidate.tests.failures if candidate.tests else ())
    ]


def test_what_was_left_out_is_not_accepted(project: Project) -> None:
    kept = project.root / "build/migration"
    (kept / "candidate.json").write_bytes((kept / "baseline.json").read_bytes())
    done = project.quality("compare")

    assert done.returncode == 1
    assert "REFUSED: stress, health, memory, hooks, lint, types, security" in done.stdout


def test_an_interruption_leaves_nothing(project: Project, unchanged: Callable[[], None]) -> None:
    command, environment = project.command(
        "candidate", "--ref", "hanging", "--tests", TINY, "--only", "tests"
    )
    with subprocess.Popen(command, cwd=project.root, env=environment, text=True) as measuring:
        until(lambda: project.hanging.exists() and project.hanging.read_text() != "")
        hanging = psutil.Process(int(project.hanging.read_text()))
        measuring.send_signal(signal.SIGINT)
        status = measuring.wait()

    assert status == 1
    hanging.wait(SOON_S)
    unchanged()


def test_nothing_to_compare_with_is_named(project: Project, tmp_path: Path) -> None:
    done = project.quality("baseline", "--library", str(tmp_path))

    assert done.returncode == 1
    assert "say REF=" in done.stderr


def test_quality_is_one_report(project: Project) -> None:
    """Of a checkout as it is, with a real daemon under the standard load."""
    project.checkout.stage({TINY: SUITE, CONFTEST: ""})
    done = project.quality("report", "--tests", TINY, "--only", "tests,load")
    report = read(project.root / "build/quality.json")
    history = (project.root / "build/quality-history.jsonl").read_text()

    project.checkout.git("reset", "--hard")
    assert done.returncode == 0, done.stderr
    assert report.changed
    assert report.health
    assert report.memory
    assert report.loop
    assert report.deadlocks
    assert report.health.polls > 0
    assert 10 < report.memory.end_mb <= report.memory.peak_mb < report.memory.warning_mb
    assert 0 == report.deadlocks.total
    assert [report.date] == [json.loads(line)["date"] for line in history.splitlines()]
    assert report.success_rate == json.loads(history)["success_rate"]
    assert "not measured: left out (ONLY=)" in done.stdout
