"""The audit of the daemon's dependencies: one that was not looked up is never taken for good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.scripts import loaded
from tests.support.tools import ROOT


@pytest.fixture
def audit() -> Iterator[ModuleType]:
    """Load the script."""
    with loaded("audit.py") as module:
        yield module


def _report(*packages: dict[str, object]) -> str:
    return json.dumps({"dependencies": packages})


def test_the_packages_of_the_lock_file_are_found(audit: ModuleType) -> None:
    names = audit.locked((ROOT / audit.LOCK).read_text())

    assert {"trio", "quart-trio", "hypercorn", "typing-extensions"} <= set(names)


def test_the_hook_looks_at_the_same_code(audit: ModuleType) -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()

    assert f"files: ^({'|'.join(audit.OUR_CODE)})/\n" in hooks


def test_a_package_without_vulnerabilities_was_looked_up(audit: ModuleType) -> None:
    looked = audit.look_up(_report({"name": "trio", "version": "1", "vulns": []}), ["trio"])

    assert ({}, []) == (looked.vulnerable, looked.unknown)


def test_a_vulnerability_is_named(audit: ModuleType) -> None:
    report = _report({"name": "trio", "version": "1", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]})

    assert {"trio": ["CVE-1", "CVE-2"]} == audit.look_up(report, ["trio"]).vulnerable


def test_a_package_that_was_skipped_or_left_out_was_not_looked_up(audit: ModuleType) -> None:
    report = _report({"name": "trio", "skip_reason": "not found, and could not be audited"})

    assert ["trio", "h11"] == audit.look_up(report, ["trio", "h11"]).unknown


@pytest.mark.parametrize("report", ["", "Traceback (most recent call last):"])
def test_where_there_is_no_report_nothing_was_looked_up(audit: ModuleType, report: str) -> None:
    assert ["trio"] == audit.look_up(report, ["trio"]).unknown


def test_a_release_that_was_withdrawn_is_named(audit: ModuleType) -> None:
    releases = [
        {"metadata": {"name": "trio"}, "is_yanked": False},
        {"metadata": {"name": "h11"}, "is_yanked": True},
    ]

    assert ["h11"] == audit.withdrawn(json.dumps({"install": releases}))


def test_of_newer_releases_those_of_the_lock_file_are_named(audit: ModuleType) -> None:
    report = json.dumps(
        [{"name": "trio", "latest_version": "2"}, {"name": "pip", "latest_version": "99"}]
    )

    assert ["trio 2"] == list(audit.newer(report, ["trio"]))


@pytest.mark.parametrize(("suffices", "status"), [(False, 1), (True, 0)])
def test_what_the_index_says_is_enough_only_where_that_was_said(
    audit: ModuleType,
    suffices: bool,  # noqa: FBT001 (a case of the table)
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {
        "bandit": "",
        "pip-audit": _report(),
        "pip": json.dumps({"install": []}),
    }

    def run(command: str, *arguments: str) -> object:
        output = "[]" if "--outdated" in arguments else said[command]
        return audit.subprocess.CompletedProcess(command, 0, stdout=output, stderr="")

    monkeypatch.setattr(audit, "_run", run)
    monkeypatch.chdir(ROOT)

    assert status == audit.main(index_suffices=suffices)
    assert "NOT LOOKED UP: aiofiles" in capsys.readouterr().out
