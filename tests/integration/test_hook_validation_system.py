"""The Git hooks: each refuses what it is for, and lets pass what is good, within its budget.

Every verdict is on a real commit, in a scratch checkout where ``make hooks`` installed them. With
``tests/integration/run_hook_validation_tests.sh`` they come as a table with a score; it is also in
``build/hooks.json``. How long a hook takes counts for the score and fails no test: that depends on
the machine. The budgets are those of CONTRIBUTING.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from tests.support.hooks import (
    CONFIGURATION,
    ENVIRONMENTS,
    NAMES,
    Checkout,
    Commit,
    Result,
    Verdict,
)
from tests.support.tools import ROOT, require

pytestmark = pytest.mark.slow

ALL = "all hooks"
BUDGETS = {
    name: float(seconds)
    for name, seconds in re.findall(
        r"^\| `?([\w -]+?)`? \| .* \| ([\d.]+) \|$",
        (ROOT / "CONTRIBUTING.md").read_text(),
        re.MULTILINE,
    )
    if name in {ALL, *NAMES}
}
"""How long a commit may take with this hook alone, in seconds, on two cores."""

RESULT = ROOT / "build" / "hooks.json"

MODULE = '"""A module."""\n'
UNUSED = f"{MODULE}\nimport os\n"
MISTYPED = f'{MODULE}\nMANY: int = "seven"\n'
USED, NEEDED = "tests/support/stock.py", "tests/support/terminal.py"
UNIT = (ROOT / "systemd/broadcasterd.service").read_text()
CONFIGURED = (ROOT / CONFIGURATION).read_text()


@dataclass(frozen=True, slots=True)
class Change:
    """What is committed."""

    files: Mapping[str, str]
    message: str = "A change"


def one(name: str, text: str) -> Change:
    return Change({name: text})


CASES = {
    "tools": (
        one(CONFIGURATION, f"{CONFIGURED}# .venv-tools/bin/made-nowhere\n"),
        one(CONFIGURATION, f"{CONFIGURED}# .venv-tools/bin/bandit\n"),
    ),
    "ruff": (
        one("tests/support/style.py", UNUSED),
        one("tests/support/style.py", f"{UNUSED}\nHERE = os.curdir\n"),
    ),
    "ruff-format": (
        one("tests/support/format.py", f"{MODULE}\nMANY  =  7\n"),
        one("tests/support/format.py", f"{MODULE}\nMANY = 7\n"),
    ),
    "mypy": (
        one("tests/support/types.py", MISTYPED),
        one("tests/support/types.py", f"{MODULE}\nMANY: int = 7\n"),
    ),
    "import-contracts": (
        one("daemon/broadcasterd/core/new.py", f"{MODULE}\nimport trio\n"),
        one("daemon/broadcasterd/core/new.py", f"{MODULE}\nimport math\n\nTAU = math.tau\n"),
    ),
    "bandit": (
        one("systemd/deployment/new.py", f'{MODULE}\nimport pickle\n\npickle.loads(b"")\n'),
        one("systemd/deployment/new.py", f'{MODULE}\nimport json\n\njson.loads("")\n'),
    ),
    "codespell": (
        one("docs/spelling.md", "# Recieved\n"),  # codespell:ignore recieved
        one("docs/spelling.md", "# Received\n"),
    ),
    "end-of-file": (one("docs/end.md", "# No end"), one("docs/end.md", "# An end\n")),
    "trailing-whitespace": (one("docs/blank.md", "# New \n"), one("docs/blank.md", "# New\n")),
    "merge-conflict": (
        one("docs/conflict.md", "<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> side\n"),
        one("docs/conflict.md", "ours, and theirs\n"),
    ),
    "secrets": (
        one("docs/key.md", f"-----BEGIN {'EC'} PRIVATE KEY-----\n"),
        one("docs/key.md", "-----BEGIN PUBLIC KEY-----\n"),
    ),
    "toml": (one("config/new.toml", "[server\n"), one("config/new.toml", "[server]\n")),
    "yaml": (one("config/new.yml", "a: [1\n"), one("config/new.yml", "a: [1]\n")),
    "json": (one("config/new.json", '{"a": 1,}\n'), one("config/new.json", '{"a": 1}\n')),
    "units": (
        one("systemd/new.service", UNIT.replace("MemoryMax=", "MemoryMx=")),
        one("systemd/new.service", UNIT),
    ),
    "large-files": (
        one("docs/large.txt", f"{'x' * 1023}\n" * 501),
        one("docs/large.txt", f"{'x' * 1023}\n" * 500),
    ),
    # Characters, not bytes.
    "subject": (Change({}, message="ä" * 101), Change({}, message="ä" * 100)),
}
"""For each hook a change that it has to refuse, and one that it has to let pass."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """Make the checkout that all tests here share, and return its first commit as well."""
    require("git")
    for tool in (".venv/bin/ruff", ".venv-tools/bin/pre-commit"):
        require(tool)
    checkout = Checkout.make(tmp_path_factory.mktemp("hooks"))
    checkout.run_hooks(hooks=["mypy", "import-contracts"])  # their caches are warm from now on
    return checkout, checkout.git("rev-parse", "HEAD").strip()


@pytest.fixture
def checkout(repository: tuple[Checkout, str]) -> Iterator[Checkout]:
    """Lend the checkout: what a test leaves there is gone after it."""
    checkout, first = repository
    yield checkout
    checkout.reset(first)


@pytest.fixture(scope="module")
def verdicts() -> Iterator[list[Verdict]]:
    """Collect the verdicts; print them at the end, and keep them where nothing was left out."""
    verdicts: list[Verdict] = []
    yield verdicts
    if not verdicts:
        return
    result = Result(verdicts)
    print(f"\n{result.table()}")  # noqa: T201 (with -s, it is what this is run for)
    if {verdict.what for verdict in verdicts} >= {*CASES, ALL}:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"score": result.score, **asdict(result)}, indent=2))


@pytest.fixture(scope="module")
def all_that_is_good(repository: tuple[Checkout, str]) -> Commit:
    """Commit what each hook has to let pass: at once, through all of them."""
    checkout, first = repository
    message = ""
    for _, good in CASES.values():
        checkout.stage(good.files)
        message = max(message, good.message, key=len)
    commit = checkout.commit(message=message)
    checkout.reset(first)
    return commit


def refuse(what: str, commit: Commit, hook: str) -> Verdict:
    """Judge a commit that a hook has to refuse."""
    actual = "refused" if commit.refused_by(hook) else "passed" if commit.made else "stuck"
    return Verdict(what, "refused", actual, commit.seconds, BUDGETS.get(what))


def let_pass(what: str, commit: Commit, hook: str) -> Verdict:
    """Judge a commit that a hook has to look at and to let pass."""
    actual = "passed" if commit.passed(hook) else "skipped" if commit.made else "refused"
    return Verdict(what, "passed", actual, commit.seconds, BUDGETS.get(what))


def judge(verdicts: list[Verdict], verdict: Verdict) -> None:
    verdicts.append(verdict)
    assert verdict.expected == verdict.actual


def try_change(checkout: Checkout, hook: str, change: Change) -> Commit:
    checkout.stage(change.files)
    return checkout.commit("--allow-empty", message=change.message, hooks=[hook])


def test_every_hook_has_its_cases_and_its_budget() -> None:
    assert [*NAMES] == [*CASES]
    assert [*BUDGETS] == [*CASES, ALL]


def test_nothing_is_fetched_for_the_hooks() -> None:
    assert {"repo: local", "language: system"} == set(
        re.findall(r"(?:repo|language): .*", CONFIGURED)
    )


@pytest.mark.parametrize("hook", CASES)
def test_a_hook_refuses_what_it_is_for(
    hook: str, checkout: Checkout, verdicts: list[Verdict]
) -> None:
    if hook == "units":
        require("systemd-analyze")
    commit = try_change(checkout, hook, CASES[hook][0])

    judge(verdicts, refuse(hook, commit, hook))


@pytest.mark.parametrize("hook", CASES)
def test_a_hook_lets_pass_what_is_good(
    hook: str, all_that_is_good: Commit, verdicts: list[Verdict]
) -> None:
    verdict = let_pass(hook, all_that_is_good, hook)

    judge(verdicts, replace(verdict, seconds=None, budget=None))


def test_a_commit_of_one_file_goes_through_all_hooks(
    checkout: Checkout, verdicts: list[Verdict]
) -> None:
    event = "daemon/broadcasterd/core/event.py"
    checkout.stage({event: f"{checkout.read(event)}\n\n# The end.\n"})
    commit = checkout.commit()

    judge(verdicts, let_pass(ALL, commit, "bandit"))
    assert [] == [hook for hook in ("ruff", "mypy", "subject") if not commit.passed(hook)]


def test_what_is_staged_counts_and_the_rest_stays_where_it_was(
    checkout: Checkout, verdicts: list[Verdict]
) -> None:
    checkout.stage({"a.py": MODULE})
    checkout.write({"a.py": UNUSED})
    commit = checkout.commit(hooks=["ruff"])

    judge(verdicts, let_pass("staged in part, good", commit, "ruff"))
    assert MODULE == checkout.git("show", "HEAD:a.py")
    assert UNUSED == checkout.read("a.py")


def test_what_is_mended_but_not_staged_is_refused(
    checkout: Checkout, verdicts: list[Verdict]
) -> None:
    checkout.stage({"a.py": UNUSED})
    checkout.write({"a.py": MODULE})
    commit = checkout.commit(hooks=["ruff"])

    judge(verdicts, refuse("staged in part, bad", commit, "ruff"))
    assert MODULE == checkout.read("a.py")


def test_a_rename_and_a_deletion_pass_and_a_file_that_git_does_not_know_is_in_nobodys_way(
    checkout: Checkout, verdicts: list[Verdict]
) -> None:
    checkout.write({"tests/support/unknown.py": MISTYPED})
    checkout.git("mv", USED, USED.replace("stock", "store"))
    for user in checkout.git("grep", "--files-with-matches", "tests.support.stock").split():
        checkout.stage({user: checkout.read(user).replace("support.stock", "support.store")})
    checkout.git("rm", "tests/unit/test_units.py")
    commit = checkout.commit(hooks=["mypy", "ruff"])

    for what in ("beside a bad unknown file", "a rename, good", "a deletion, good"):
        judge(verdicts, replace(let_pass(what, commit, "mypy"), seconds=None))


def test_a_rename_that_others_do_not_know_of_and_a_deletion_of_what_they_need_are_refused(
    checkout: Checkout, verdicts: list[Verdict]
) -> None:
    checkout.git("mv", USED, USED.replace("stock", "store"))
    checkout.git("rm", NEEDED)
    commit = checkout.commit(hooks=["mypy"])

    for what, module in (("a rename, bad", "stock"), ("a deletion, bad", "terminal")):
        verdict = replace(refuse(what, commit, "mypy"), seconds=None)
        missed = f'named "tests.support.{module}"' in commit.output
        judge(verdicts, verdict if missed else replace(verdict, actual="passed"))


def branch_off(checkout: Checkout, theirs: Change, ours: Change) -> None:
    """Commit one change on a branch named side and the other on main, both without the hooks."""
    checkout.git("checkout", "-B", "side")
    checkout.stage(theirs.files)
    checkout.git("commit", "--no-verify", "--message=Theirs")
    checkout.git("checkout", "main")
    checkout.stage(ours.files)
    checkout.git("commit", "--no-verify", "--message=Ours")


def test_a_merge_passes(checkout: Checkout, verdicts: list[Verdict]) -> None:
    branch_off(checkout, one("a.py", MODULE), one("b.py", MODULE))
    commit = checkout.attempt("merge", "--no-edit", "side", hooks=["ruff", "subject"])

    judge(verdicts, let_pass("a merge, good", commit, "ruff"))
    assert 3 == len(checkout.git("rev-list", "--parents", "--max-count=1", "HEAD").split())


def test_a_merge_of_branches_that_are_good_only_by_themselves_is_refused(
    checkout: Checkout, verdicts: list[Verdict]
) -> None:
    needs, has = f"{MODULE}\nfrom b import MANY\n\nprint(MANY)\n", f"{MODULE}\nMANY = 7\n"
    checkout.stage({"tests/support/b.py": has})
    checkout.git("commit", "--no-verify", "--message=Both have it")
    branch_off(
        checkout,
        one("tests/support/a.py", needs.replace("from b", "from tests.support.b")),
        one("tests/support/b.py", has.replace("MANY", "LOTS")),
    )
    commit = checkout.attempt("merge", "--no-edit", "side", hooks=["mypy"])

    judge(verdicts, refuse("a merge, bad", commit, "mypy"))


def test_a_conflict_that_is_left_as_it_was_is_refused(
    checkout: Checkout, verdicts: list[Verdict]
) -> None:
    branch_off(checkout, one("docs/new.md", "theirs\n"), one("docs/new.md", "ours\n"))
    assert not checkout.attempt("merge", "side").made
    checkout.git("add", "docs/new.md")
    commit = checkout.commit(hooks=["merge-conflict"])

    judge(verdicts, refuse("a merge, with a conflict", commit, "merge-conflict"))


def test_no_verify_goes_without_the_hooks(checkout: Checkout) -> None:
    checkout.stage(CASES["ruff"][0].files)

    commit = checkout.commit("--no-verify", message="x" * 101)

    assert (True, False) == (commit.made, commit.passed("tools"))


def test_where_the_hooks_do_not_come_with_their_tools_they_say_what_helps(
    checkout: Checkout, tmp_path: Path
) -> None:
    worktree = tmp_path / "worktree"  # it shares the hooks, and has no environments
    checkout.git("worktree", "add", "--detach", str(worktree))
    elsewhere = Checkout(worktree, checkout.environment)
    elsewhere.stage({"docs/new.md": "# New\n"})

    commit = elsewhere.commit()

    assert commit.refused_by("tools")
    assert "`make hooks` installs what they need" in commit.output
    assert 1 == commit.output.count("- hook id: ")
    checkout.git("worktree", "remove", "--force", str(worktree))


def test_where_the_environment_of_the_hooks_is_gone_the_message_says_what_helps(
    checkout: Checkout,
) -> None:
    checkout.stage({"docs/new.md": "# New\n"})
    [tools] = [checkout.directory / name for name in ENVIRONMENTS if "tools" in name]
    there = tools.readlink()
    tools.unlink()
    try:
        commit = checkout.commit(environment={"PATH": "/usr/bin:/bin"})
    finally:
        tools.symlink_to(there)

    assert not commit.made
    assert "`make hooks`" in commit.output


def test_the_hooks_are_taken_away_and_come_back(checkout: Checkout) -> None:
    own = checkout.directory / ".git/hooks/commit-msg"
    own.with_suffix(".legacy").write_text("somebody's own")  # where it is if it came before them
    checkout.stage(CASES["ruff"][0].files)

    checkout.make_target("hooks-off")
    without = checkout.commit()
    left = own.read_text()
    own.unlink()
    checkout.make_target("hooks")

    assert (True, "somebody's own") == (without.made, left)
    assert try_change(checkout, "codespell", CASES["codespell"][0]).refused_by("codespell")


def test_the_project_as_it_is_passes_the_hooks(checkout: Checkout) -> None:
    by_targets = {"ruff", "ruff-format", "mypy", "import-contracts", "bandit", "codespell"}
    others = [hook for hook in NAMES if hook not in by_targets | {"subject"}]
    done = checkout.run_hooks("--all-files", hooks=others)

    passed = re.findall(r"^(.+?)\.+Passed$", done.stdout, re.MULTILINE)
    assert [NAMES[hook] for hook in others] == passed, done.stdout


def test_a_hook_that_is_switched_off_is_found_out(checkout: Checkout) -> None:
    checkout.switch_off("codespell")
    verdicts: list[Verdict] = []
    commit = try_change(checkout, "codespell", CASES["codespell"][0])

    with pytest.raises(AssertionError):
        judge(verdicts, refuse("codespell", commit, "codespell"))
    assert ["passed"] == [verdict.actual for verdict in verdicts]
    assert Result(verdicts).score <= 20


GOOD = Verdict("good", "refused", "refused", seconds=1.0, budget=1.0)
WRONG = replace(GOOD, what="wrong", actual="passed")
SLOW = replace(GOOD, what="slow", seconds=1.1)
UNTIMED = Verdict("untimed", "passed", "passed")


@pytest.mark.parametrize(
    ("verdicts", "score"),
    [
        ([GOOD], 100),
        ([SLOW], 80),
        ([WRONG], 20),
        ([GOOD, WRONG, SLOW, GOOD], 60 + 15),
        ([SLOW, UNTIMED], 80),
    ],
)
def test_the_score_is_made_of_right_verdicts_and_of_budgets(
    verdicts: list[Verdict], score: float
) -> None:
    assert score == Result(verdicts).score


def test_the_table_names_what_is_wrong_and_what_took_too_long() -> None:
    _, wrong, slow, untimed, last = Result([WRONG, SLOW, UNTIMED]).table().splitlines()

    assert ["wrong", "refused", "passed", "WRONG", "1.00", "1"] == wrong.split()
    assert ["slow", "refused", "refused", "right", "1.10", "1", "over"] == slow.split()
    assert ["untimed", "passed", "passed", "right"] == untimed.split()
    assert last == "score: 63.3 of 100 (2 of 3 verdicts right, 1 of 2 budgets kept)"
