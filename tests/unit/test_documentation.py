"""The documents: their links lead somewhere, and what they name or show is there, and works.

Each listing is run by a test, or says why not.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from broadcasterd.cli import commands
from broadcasterd.config import from_mapping
from deployment.documents import documents
from tests.support.documents import Listing, broken_links, listings, listings_of, prose_of

PROJECT = Path(__file__).parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
NAMES = [document.relative_to(PROJECT).as_posix() for document in DOCUMENTS]
PLACES = (
    *(PROJECT, PROJECT / "daemon/broadcasterd", PROJECT / "systemd"),
    *(PROJECT / "tests" / kind for kind in ("unit", "integration", "systemd", "support")),
)
"""Where a file is that a document names."""

TO_RUN = {"sh", "console", "python", "js", "html", "toml"}
"""The languages of what a reader is to run, or to save."""

RUN_BY: Mapping[tuple[str, str], str] = {
    **{
        ("README.md", f"sh {heading}"): "e2e/test_first_minutes.py"
        for heading in ("Try", "Authenticate", "Listen", "Publish")
    },
    ("README.md", "js"): "e2e/test_first_minutes.py",
    ("README.md", "sh Operate"): "systemd/test_documents.py",
    ("docs/alerts.md", "sh"): "systemd/test_documents.py",
    ("docs/alerts.md", "toml"): "unit/test_documentation.py",
    ("docs/engines.md", "toml"): "unit/test_documentation.py",
    ("docs/client.md", "python"): "e2e/test_client_page.py",
    ("docs/client.md", "html"): "e2e/test_client_js.py",
    ("docs/figures.md", "sh"): "systemd/test_documents.py",
    ("docs/http.md", "js"): "e2e/test_first_minutes.py",
    ("docs/logs.md", "sh"): "systemd/test_journal.py",
    ("docs/migration.md", "python"): "e2e/test_migration_page.py",
    ("docs/migration.md", "sh"): "e2e/test_migration_page.py",
    ("docs/operate.md", "sh"): "systemd/test_documents.py",
    ("docs/page.md", "sh"): "systemd/test_documents.py",
    **{
        ("docs/proxies.md", f"sh {heading}"): "support/proxies.py"
        for heading in ("nginx", "HAProxy", "Caddy", "Apache")
    },
    ("docs/proxies.md", "sh In the daemon"): "systemd/test_journal.py",
    ("docs/runbook.md", "sh"): "systemd/test_documents.py",
    ("docs/start.md", "html"): "e2e/test_first_minutes.py",
    ("docs/start.md", "python"): "e2e/test_first_minutes.py",
    ("docs/start.md", "sh"): "e2e/test_first_minutes.py",
    ("docs/start/recipes.md", "html"): "e2e/test_recipes.py",
    ("docs/start/recipes.md", "js"): "e2e/test_recipes.py",
    ("docs/start/recipes.md", "python"): "e2e/test_recipes.py",
    ("docs/start/recipes.md", "sh"): "e2e/test_recipes.py",
    ("docs/systemd.md", "sh Keys and certificates"): "systemd/test_documents.py",
    ("docs/systemd.md", "sh TLS with certbot"): "systemd/test_credentials.py",
    ("docs/systemd.md", "sh Two cores, one address"): "systemd/test_nodes.py",
}
"""By document and language, and heading where sections differ, the test that runs the listings. It
takes all that there are, or unpacks as many as it knows: one more does not go unseen."""

each_document = pytest.mark.parametrize("name", NAMES)


def missing_files(document: Path) -> Iterator[str]:
    for named in re.findall(r"`([\w/.-]+\.(?:py|toml|lock|service|socket))`", prose_of(document)):
        if not named.startswith("/") and not any((place / named).exists() for place in PLACES):
            yield named


@each_document
def test_every_link_leads_somewhere(name: str) -> None:
    assert [] == list(broken_links(PROJECT / name))


@each_document
def test_every_file_that_is_named_is_there(name: str) -> None:
    assert [] == list(missing_files(PROJECT / name))


def test_the_links_of_installed_documents_lead_to_what_is_installed(tmp_path: Path) -> None:
    made = documents(PROJECT)
    for name, contents in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    below = [name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")]

    assert {*below, "CHANGELOG.md", "config/broadcasterd.toml"} <= set(made)
    assert {} == {
        name: broken
        for name in made
        if name.endswith(".md") and (broken := [*broken_links(tmp_path / name)])
    }


def test_the_index_has_every_document() -> None:
    index = (PROJECT / "docs/README.md").read_text()
    below = [name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")]

    assert ["README.md"] == [name for name in below if f"]({name})" not in index]


def test_a_link_to_nowhere_and_a_file_that_is_gone_are_seen(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("# Here I am\n[a](#here-i-am) [b](#there) [c](gone.md) `edge/app.py`\n")

    assert ["#there", "gone.md"] == list(broken_links(document))
    assert ["edge/app.py"] == list(missing_files(document))


def runner_of(name: str, listing: Listing) -> str | None:
    """Return the test that runs a listing."""
    by_language = RUN_BY.get((name, listing.language))
    return RUN_BY.get((name, f"{listing.language} {listing.heading}"), by_language)


@each_document
def test_each_listing_is_run_by_a_test_or_says_why_not(name: str) -> None:
    to_run = [each for each in listings(PROJECT / name) if each.language in TO_RUN]
    runners = {each: None if each.reason else runner_of(name, each) for each in to_run}

    assert [] == [each.text for each, runner in runners.items() if not (runner or each.reason)]
    assert [] == [each.heading for each in listings(PROJECT / name) if not each.language]
    assert {key for key in RUN_BY if key[0] == name} <= {
        key
        for each in to_run
        if not each.reason
        for key in ((name, each.language), (name, f"{each.language} {each.heading}"))
    }


def test_listings_are_told_apart(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(
        "# One\n\n```sh\n# no heading\nls\n```\n\n## Two\n\n"
        "<!-- not run: it takes long -->\n```sh\nsleep 9\n```\n"
    )

    assert [
        Listing("One", "sh", "# no heading\nls\n", ""),
        Listing("Two", "sh", "sleep 9\n", "it takes long"),
    ] == [*listings(document)]
    assert runner_of("document.md", next(listings(document))) is None


@pytest.mark.parametrize(("document", "what"), RUN_BY, ids="-".join)
def test_the_test_that_runs_a_listing_is_about_that_document(document: str, what: str) -> None:
    runner = (PROJECT / "tests" / RUN_BY[document, what]).read_text()

    assert Path(document).stem in runner
    assert re.search(r"listings(_of)?\(|shell_of\(", runner)


@pytest.mark.parametrize("name", ["docs/alerts.md", "docs/engines.md"])
def test_each_piece_of_a_configuration_is_taken(name: str) -> None:
    pieces = listings_of(PROJECT / name, "toml")

    assert pieces
    for piece in pieces:
        from_mapping(tomllib.loads(piece))


def shown(call: str) -> Iterator[tuple[str, str]]:
    """Yield the document and the arguments of each call of a command, a pattern, in a listing."""
    for name in NAMES:
        for listing in listings(PROJECT / name):
            if listing.language in {"sh", "console"}:
                for arguments in re.findall(rf"{call} ([^|\n;)]+)", listing.text, re.MULTILINE):
                    yield name, arguments


def test_each_target_that_is_shown_is_there() -> None:
    files = PROJECT / "Makefile", *PROJECT.glob("*/*.mk"), *PROJECT.glob("systemd/*/*.mk")
    targets = {
        target
        for file in files
        for target in re.findall(r"^([\w-]+):", file.read_text(), re.MULTILINE)
    }
    named = {
        (name, word)
        for name, arguments in shown(r"(?<![\w./-])make")
        for word in arguments.partition("#")[0].split()
        if "=" not in word and not word.startswith("-")
    }

    assert len(named) > 10
    assert set() == {each for each in named if each[1] not in targets}


def test_each_command_and_option_that_is_shown_is_there() -> None:
    calls = [*shown(r"(?:^|[|] |bin/)broadcasterd")]

    assert len(calls) > 10
    for name, arguments in calls:
        command, *rest = arguments.split()
        parsed = commands if command.startswith("-") else commands.commands[command]
        options = {
            option
            for each in parsed.get_params(click.Context(parsed))
            for option in (*each.opts, *each.secondary_opts)
        }
        assert [] == [
            word for word in (command, *rest) if word.startswith("--") and word not in options
        ], name
