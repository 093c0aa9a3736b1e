"""A scratch checkout in which the Git hooks are really installed, and verdicts on what they do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.tools import ROOT

CONFIGURATION = ".pre-commit-config.yaml"
ENVIRONMENTS = (".venv", ".venv-tools")
NAMES = dict(
    re.findall(r"^ +- id: (.+)\n +name: (.+)$", (ROOT / CONFIGURATION).read_text(), re.MULTILINE)
)
"""The names that pre-commit prints for the hooks, by their ids."""

RIGHT, KEPT = 80, 20
"""What a score of 100 is made of: right verdicts, and budgets that were kept."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that was tried; ``seconds`` is how long Git and the hooks took for it."""

    made: bool
    output: str
    seconds: float

    def passed(self, hook: str) -> bool:
        """Return whether it was made after a hook had looked at it, and found nothing."""
        return self.made and self._says(rf"{re.escape(NAMES[hook])}\.+Passed")

    def refused_by(self, hook: str) -> bool:
        """Return whether a hook refused it, and whether that was why it was not made."""
        return not self.made and self._says(f"- hook id: {re.escape(hook)}")

    def _says(self, line: str) -> bool:
        return re.search(f"^{line}$", self.output, re.MULTILINE) is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one commit, against what should have, and how long that took.

    What was not tried by itself has no time; what has no budget cannot miss it.
    """

    what: str
    expected: str
    actual: str
    seconds: float | None = None
    budget: float | None = None

    @property
    def right(self) -> bool:
        """Whether it is what it should be."""
        return self.actual == self.expected

    @property
    def kept(self) -> bool:
        """Whether it came within its budget."""
        return self.seconds is None or self.budget is None or self.seconds <= self.budget


@dataclass(frozen=True, slots=True)
class Result:
    """All verdicts, and what the hooks are worth by them."""

    verdicts: Collection[Verdict]

    @property
    def right(self) -> int:
        """How many verdicts are right."""
        return sum(verdict.right for verdict in self.verdicts)

    @property
    def budgets(self) -> list[Verdict]:
        """What was to come within a budget."""
        return [verdict for verdict in self.verdicts if verdict.budget is not None]

    @property
    def kept(self) -> int:
        """How many budgets were kept."""
        return sum(verdict.kept for verdict in self.budgets)

    @property
    def score(self) -> float:
        """What the hooks are worth, of 100."""
        return RIGHT * self.right / len(self.verdicts) + KEPT * self.kept / len(self.budgets)

    def table(self) -> str:
        """Return the verdicts as a text, a line for each, and the score."""
        head = f"{'a commit for':<26} {'has to be':<10} {'was':<10} {'':<6} {'s':>5} budget"
        right = f"{self.right} of {len(self.verdicts)} verdicts right"
        kept = f"{self.kept} of {len(self.budgets)} budgets kept"
        score = f"score: {self.score:.1f} of 100 ({right}, {kept})"
        return "\n".join([head, *map(_row, self.verdicts), score])


def _row(verdict: Verdict) -> str:
    right = "right" if verdict.right else "WRONG"
    seconds = "" if verdict.seconds is None else f"{verdict.seconds:.2f}"
    budget = "" if verdict.budget is None else f"{verdict.budget:g}"
    row = f"{verdict.what:<26} {verdict.expected:<10} {verdict.actual:<10} {right:<6}"
    return f"{row} {seconds:>5} {budget:>6} {'' if verdict.kept else 'over'}".rstrip()


class Checkout:
    """The project as it is in the working tree, in a repository of its own, with the hooks on."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = environment

    @classmethod
    def make_without_hooks(cls, directory: Path) -> Self:
        """Make one with a single commit."""
        checkout = cls(directory / "checkout", _environment(directory))
        checkout.directory.mkdir()
        checkout.git("init", "--initial-branch=main")
        itself = f"--git-dir={checkout.directory / '.git'}"
        checkout.git("-C", str(ROOT), itself, f"--work-tree={ROOT}", "add", "--all")
        checkout.git("commit", "--message=The project")
        checkout.git("reset", "--hard")
        return checkout

    @classmethod
    def make(cls, directory: Path) -> Self:
        """Make one with a single commit, and install the hooks there as a newcomer does."""
        checkout = cls.make_without_hooks(directory)
        # No hook writes to them, and a link is no folder, so .gitignore does not know it.
        for name in ENVIRONMENTS:
            (checkout.directory / name).symlink_to(ROOT / name)
        (checkout.directory / ".git/info/exclude").write_text("\n".join(ENVIRONMENTS))
        # A warm start: mypy's own is what is slow when it is cold.
        if (cache := ROOT / ".mypy_cache").is_dir():
            shutil.copytree(cache, checkout.directory / cache.name)
        checkout.make_target("hooks")
        return checkout

    def make_target(self, target: str) -> None:
        """Run a target of the Makefile, with the environments as they are."""
        done = [f"--old-file={name}/.installed" for name in ENVIRONMENTS]
        self._run(["make", *done, target], check=True)

    def git(self, *arguments: str) -> str:
        """Run Git, which has to succeed, and return what it writes."""
        return self._run(["git", *arguments], check=True).stdout

    def write(self, files: Mapping[str, str]) -> None:
        """Write files of the working tree."""
        for name, text in files.items():
            file = self.directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def read(self, name: str) -> str:
        """Return the text of a file of the working tree."""
        return (self.directory / name).read_text()

    def stage(self, files: Mapping[str, str]) -> None:
        """Write files and stage them."""
        self.write(files)
        self.git("add", "--", *files)

    def commit(
        self,
        *options: str,
        message: str = "A change",
        hooks: Iterable[str] = NAMES,
        environment: Mapping[str, str] | None = None,
    ) -> Commit:
        """Try to commit what is staged, with these hooks and no others."""
        return self.attempt(
            "commit", f"--message={message}", *options, hooks=hooks, environment=environment
        )

    def attempt(
        self,
        *command: str,
        hooks: Iterable[str] = NAMES,
        environment: Mapping[str, str] | None = None,
    ) -> Commit:
        """Try a command of Git that makes a commit, with these hooks and no others."""
        before = self.git("rev-parse", "HEAD")
        began = time.monotonic()
        done = self._run(["git", *command], environment={**_only(hooks), **(environment or {})})
        seconds = time.monotonic() - began
        made = self.git("rev-parse", "HEAD") != before
        return Commit(made, done.stdout, seconds)

    def run_hooks(
        self, *arguments: str, hooks: Iterable[str] = NAMES
    ) -> subprocess.CompletedProcess[str]:
        """Run these hooks and no others, without a commit (``pre-commit run``)."""
        return self._run(
            [".venv-tools/bin/pre-commit", "run", *arguments], environment=_only(hooks)
        )

    def switch_off(self, hook: str) -> None:
        """Have a hook look at nothing, and commit that, without the hooks."""
        text = self.read(CONFIGURATION)
        off = re.sub(rf"(- id: {hook}\n(?: {{8}}.*\n)*? {{8}}entry: ).*", r"\1'true'", text)
        self.stage({CONFIGURATION: off})
        self.git("commit", "--no-verify", f"--message=No {hook}")

    def reset(self, commit: str) -> None:
        """Go back to a commit, on the branch of the first; what is not in it is gone."""
        self.git("reset", "--hard")
        self.git("checkout", "-B", "main", commit)
        self.git("clean", "-d", "--force")

    def _run(
        self,
        command: list[str],
        *,
        environment: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}")
        return done


def _only(hooks: Iterable[str]) -> dict[str, str]:
    """Return what has pre-commit pass over all other hooks."""
    return {"SKIP": ",".join(sorted(NAMES.keys() - set(hooks)))}


def _environment(directory: Path) -> dict[str, str]:
    """Return an environment in which neither the user's Git nor a Git around the test counts."""
    settings = directory / "gitconfig"
    settings.write_text(
        "[user]\nname = Somebody\nemail = somebody@example.org\n[advice]\ndetachedHead = false\n"
    )
    foreign = ("GIT_", "MAKE", "MFLAGS", "PRE_COMMIT", "SKIP")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return inherited | {
        "GIT_CONFIG_GLOBAL": str(settings),
        "GIT_CONFIG_NOSYSTEM": "1",
        "PRE_COMMIT_COLOR": "never",
        "PRE_COMMIT_HOME": str(directory / "pre-commit"),
    }
