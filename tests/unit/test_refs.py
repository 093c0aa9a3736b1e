"""Which commit a migration is compared with: the release that runs, else the last tag."""

from __future__ import annotations

from pathlib import Path

import pytest

from quality.processes import QualityError, git
from quality.refs import commit_of, to_compare_with
from tests.support.tools import require

WHO = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a repository of three commits; tags v1.0 and v2.0 are on the first and the second."""
    require("git")
    directory = tmp_path / "repository"
    directory.mkdir()
    git("init", "--initial-branch=main", directory=directory)
    for number in (1, 2, 3):
        git(*WHO, "commit", "--allow-empty", f"--message={number}", directory=directory)
        if number != 3:
            git("tag", f"v{number}.0", directory=directory)
    return directory


def install(library: Path, version: str, commit: str | None = None) -> None:
    release = library / "releases" / version
    release.mkdir(parents=True)
    if commit is not None:
        (release / "commit").write_text(f"{commit}\n")
    (library / "current").symlink_to(f"releases/{version}")


def test_it_is_the_commit_that_the_current_release_was_made_of(
    repository: Path, tmp_path: Path
) -> None:
    head = commit_of("HEAD", repository)
    install(tmp_path, "1.0", commit=head)

    assert head == to_compare_with(repository, tmp_path)


def test_a_release_that_notes_no_commit_has_the_tag_of_its_version(
    repository: Path, tmp_path: Path
) -> None:
    install(tmp_path, "1.0")

    assert commit_of("v1.0", repository) == to_compare_with(repository, tmp_path)


def test_a_commit_that_is_not_in_this_repository_is_passed_over(
    repository: Path, tmp_path: Path
) -> None:
    install(tmp_path, "1.0", commit="0" * 40)

    assert commit_of("v1.0", repository) == to_compare_with(repository, tmp_path)


def test_where_nothing_is_installed_it_is_the_last_tag(repository: Path, tmp_path: Path) -> None:
    assert commit_of("v2.0", repository) == to_compare_with(repository, tmp_path)


def test_where_there_is_neither_it_has_to_be_named(repository: Path, tmp_path: Path) -> None:
    git("tag", "--delete", "v1.0", "v2.0", directory=repository)

    with pytest.raises(QualityError, match=r"no release is installed, and there is no tag.*REF="):
        to_compare_with(repository, tmp_path)


def test_what_is_no_commit_is_named(repository: Path) -> None:
    with pytest.raises(QualityError, match="'gone'"):
        commit_of("gone", repository)
