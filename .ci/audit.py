"""Look for known vulnerabilities: in our code with bandit, in what it runs on with pip-audit.

pip-audit passes over a package that its service does not know, and ends well. Here that is no
pass: it was *not looked up*, and is named. For those the package index is asked instead, which
knows two things: whether a release was withdrawn, and whether there is a newer one. A vulnerability
that was mended has a newer release; where there is none, no mending is missed.

That is less, so it is enough only where ``--index-suffices`` says so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK = "requirements.lock"

OUR_CODE = ("daemon", "systemd")
"""Where bandit looks; its hook in .pre-commit-config.yaml looks at the same."""

TOOLS = Path(".venv-tools/bin")
"""Their pip knows what was withdrawn, which an older one does not. It looks at the Python that runs
this, where the daemon is installed."""

FROM_THE_INDEX = {**os.environ, "PIP_FIND_LINKS": ""}
"""What lies in a folder says nothing of what the index has."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What pip-audit knows: vulnerabilities by package, and of which packages it knows nothing."""

    vulnerable: dict[str, list[str]]
    unknown: list[str]


def locked(text: str) -> list[str]:
    """Return the names of the packages in a lock file."""
    return re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE)


def look_up(report: str, names: list[str]) -> Looked:
    """Read pip-audit's report; where there is none, nothing was looked up."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except json.JSONDecodeError:
        return Looked({}, names)
    found = {package["name"]: package.get("vulns") for package in packages}
    return Looked(
        {name: [each["id"] for each in vulns] for name, vulns in found.items() if vulns},
        [name for name in names if found.get(name) is None],
    )


def withdrawn(report: str) -> list[str]:
    """Read pip's report of an installation: the releases that were withdrawn ("yanked")."""
    releases: list[dict[str, Any]] = json.loads(report)["install"]
    return [each["metadata"]["name"] for each in releases if each["is_yanked"]]


def newer(report: str, names: list[str]) -> Iterator[str]:
    """Read pip's list of what is outdated: the newest releases of the locked packages."""
    for each in json.loads(report):
        if each["name"] in names:
            yield f"{each['name']} {each['latest_version']}"


def main(*, index_suffices: bool) -> int:
    """Look, say what was looked at, and return the exit status."""
    names = locked(Path(LOCK).read_text(encoding="utf-8"))
    passed = _our_code_is_clean()
    asked = _run("pip-audit", "-r", LOCK, "--require-hashes", "--disable-pip", "--format", "json")
    looked = look_up(asked.stdout, names)
    _say(f"pip-audit looked up {len(names) - len(looked.unknown)} of {len(names)} packages")
    for name, ids in looked.vulnerable.items():
        _say(f"{name} is VULNERABLE: {', '.join(ids)}")
        passed = False
    if looked.unknown:
        _say(f"NOT LOOKED UP: {', '.join(looked.unknown)}")
        _say("its service does not know these, or cannot be reached: the index is asked instead")
        passed &= _index_has_nothing_against(names) and index_suffices
    _say("passed" if passed else "FAILED")
    return 0 if passed else 1


def _our_code_is_clean() -> bool:
    checked = _run("bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml", *OUR_CODE)
    _say("bandit found nothing" if checked.returncode == 0 else f"bandit: {checked.stdout}")
    return checked.returncode == 0


def _index_has_nothing_against(names: list[str]) -> bool:
    dry = ["--dry-run", "--ignore-installed", "--no-deps", "--no-cache-dir", "--require-hashes"]
    checked = _run("pip", "install", *dry, "--quiet", "--report", "-", "-r", LOCK)
    if checked.returncode != 0:
        _say(f"the index does NOT HAVE what is locked:\n{checked.stderr}")
        return False
    gone = withdrawn(checked.stdout)
    _say(f"the index has all of them with these hashes; WITHDRAWN: {', '.join(gone) or 'none'}")
    outdated = _run("pip", "list", "--outdated", "--format", "json").stdout
    _say(f"newer releases that may mend something: {', '.join(newer(outdated, names)) or 'none'}")
    return not gone


def _run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    looked_at = ["--python", sys.executable] if command == "pip" else []
    return subprocess.run(  # noqa: S603 (each of them is above)
        [TOOLS / command, *looked_at, *arguments],
        env=FROM_THE_INDEX,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def _say(what: str) -> None:
    print(f"audit: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(index_suffices="--index-suffices" in sys.argv))
