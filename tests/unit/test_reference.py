"""The reference, the man pages and the completions: current, and good for what reads them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.scripts import loaded
from tests.support.tools import ROOT, require

EXAMPLE = (ROOT / "config/broadcasterd.toml").read_text()


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """Load the script that writes them."""
    with loaded("reference.py") as module:
        yield module


def comments(example: str) -> dict[str, str]:
    """Return the first comment on each key of a file: what stands beside it, and goes on below."""
    found: dict[str, str] = {}
    table = ""
    for line in re.sub(r"\n {20,}# ", " ", example).splitlines():
        if header := re.fullmatch(r"\[+([\w.]+)\]+", line):
            table = header[1]
        elif key := re.match(r"(?:# )?(\w+) = (?:[^#\"]|\"[^\"]*\")*# (.*)", line):
            found.setdefault(f"{table}.{key[1]}", key[2])
    return found


def test_they_are_current(reference: ModuleType) -> None:
    made = {place.as_posix(): text for place, text in reference.files().items()}
    there = {place: (ROOT / place).read_text() for place in made}

    assert made == there, "make reference"
    below = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("config/share/**/*")
        if path.is_file()
    }
    assert below == {place for place in made if place.startswith("config/share/")}


def test_the_example_says_the_same_of_each_key(reference: ModuleType) -> None:
    meanings = {
        f"{section}.{setting.key}": setting.meaning
        for section, _, settings in reference.sections()
        for setting in settings
        if f"{section}.{setting.key}" not in reference.ENVIRONMENT_ONLY
    }
    said = comments(EXAMPLE)

    assert meanings.keys() == said.keys()
    assert {} == {key: text for key, text in meanings.items() if not said[key].startswith(text)}


@pytest.mark.parametrize("page", ["man1/broadcasterd.1", "man5/broadcasterd.toml.5"])
def test_a_man_page_is_shown_without_a_warning(page: str) -> None:
    command = [require("man"), "--warnings", "--local-file", f"{ROOT / 'config/share/man' / page}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    name, section = Path(page).stem, Path(page).suffix[1:]

    assert "" == shown.stderr
    assert f"{name.upper()}({section})" == shown.stdout.split()[0]


COMPLETE = {
    "bash": """
        source config/share/bash-completion/completions/broadcasterd
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        $(complete -p broadcasterd | grep -oP '(?<=-F )\\w+') "$1"
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { function_of_it=$1 }
        _describe() { print -rl -- ${(P)3} }
        compadd() { print -rl -- ${(P)@[-1]} }
        source config/share/zsh/site-functions/_broadcasterd
        words=("$@") CURRENT=$#
        $function_of_it
    """,
    "fish": """
        source config/share/fish/vendor_completions.d/broadcasterd.fish
        complete --do-complete "$argv"
    """,
}
"""What has a shell complete the words that it is given. Of zsh, whose completion needs a terminal,
two functions are replaced by what prints their candidates."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "words", "candidates"),
    [
        ("bash", ("t",), ["tail", "token", "top"]),
        ("bash", ("sessions", "--l"), ["--limit"]),
        ("bash", ("sessions", "--sort", "b"), ["bytes"]),
        ("zsh", ("t",), ["tail", "token", "top"]),
        ("fish", ("sessions", "--l"), ["--limit"]),
    ],
    ids=["bash, a command", "bash, an option", "bash, a choice", "zsh", "fish"],
)
def test_a_shell_completes(
    shell: str, words: tuple[str, ...], candidates: list[str], tmp_path: Path
) -> None:
    before = ["--"] if shell == "fish" else ["shell"]
    said = subprocess.run(
        [require(shell), "-c", COMPLETE[shell], *before, "broadcasterd", *words],
        cwd=ROOT,
        env={"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "" == said.stderr
    assert candidates == [re.split(r"[:\t]", line)[0] for line in said.stdout.split("\n") if line]
