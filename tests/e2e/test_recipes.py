"""docs/start/recipes.md: each recipe does what it says, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from typing_extensions import override

from broadcasterd.client import Client
from tests.e2e.devtools import Browser
from tests.support.daemon import Daemon, StartDaemon
from tests.support.documents import listings_of
from tests.support.lines import Lines
from tests.support.proxy import CuttingProxy
from tests.support.tokens import bearer, claims, jwt_mode, sign
from tests.support.tools import NODE_MODULES, ROOT, require

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs/start/recipes.md"
PIPELINE, CURL, PUBLISH, RELAY = listings_of(PAGE, "sh")
ANSWERS, JOBS, BUILDER = listings_of(PAGE, "python")
[APP] = listings_of(PAGE, "js")
WITH_TICKETS, WITH_HTMX = listings_of(PAGE, "html")

ALL = ("answer:*", "build:*", "job:*", "orders", "user:*")
TOKEN = sign(claims(subscribe=ALL, publish=ALL))

Event = tuple[str, str]
"""Name and data."""

SOON = 60.0
"""Seconds, for a loaded machine; what is waited for takes a start of Node, or of a framework."""


@pytest.fixture
def daemon(start_daemon: StartDaemon, tmp_path: Path) -> Daemon:
    return start_daemon(auth=jwt_mode(tmp_path), server={"cors_origins": ["*"]})


def environment(url: str) -> dict[str, str]:
    """Return that of a shell with the daemon's address, a token, and our commands."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"BROADCASTERD_URL": url, "BROADCASTERD_TOKEN": TOKEN, "PORT": "0", "PATH": path}
    return {**os.environ, **own}


def python(*arguments: str) -> list[str]:
    """Return a command of the environment that has the libraries of the recipes."""
    return [require(".venv-recipes/bin/python"), *arguments]


@contextmanager
def serving(
    command: Sequence[str], directory: Path, url: str, **variables: str
) -> Iterator[Callable[[], str]]:
    """Run a program that serves; yield what waits for it to print its address, and returns it."""
    process = subprocess.Popen(
        command,
        cwd=directory,
        env={**environment(url), "PYTHONPATH": f"{ROOT / 'daemon'}", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = Lines(process.stdout)

    def address() -> str:
        printed = []
        while (line := lines.next(within=SOON)) is not None:
            printed.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found[0]
        raise AssertionError("\n".join(printed))

    try:
        yield address
    finally:
        process.kill()
        process.wait()
        lines.close()


def is_done(event: Event) -> bool:
    return event[0] == "done"


def heard(daemon: Daemon, session: str, last: Callable[[Event], bool]) -> list[Event]:
    """Listen to a session from its beginning; return its events up to the last one."""
    seen = []
    with Client(daemon.url, token=TOKEN) as client, client.subscribe(session) as events:
        for event in events:
            seen.append((event.event, event.data))
            if last(seen[-1]):
                return seen
    raise AssertionError(seen)


def sh(command: str, url: str, replaced: Mapping[str, str] | None = None) -> str:
    """Run a listing of the page; return what it prints."""
    for old, new in (replaced or {}).items():
        assert old in command
        command = command.replace(old, new)
    return subprocess.check_output(["bash", "-euc", command], env=environment(url), text=True)


def test_a_shell_pipeline(daemon: Daemon) -> None:
    require("curl")
    publish, tail = PIPELINE.splitlines()

    assert '"accepted":2' in sh(publish, daemon.url)
    with subprocess.Popen(
        ["sh", "-c", f"exec {tail}"], env=environment(daemon.url), stdout=subprocess.PIPE, text=True
    ) as listening:
        assert listening.stdout is not None
        assert "done\n" == listening.stdout.readline()
        assert '"accepted":1' in sh(CURL, daemon.url)
        assert "it is built\n" == listening.stdout.readline()
        url = f"{daemon.url}/v1/sessions/build:7"
        httpx.delete(url, headers=bearer(TOKEN)).raise_for_status()
        assert "" == listening.stdout.read()


def test_the_tokens_of_a_language_model_from_fastapi(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "answers.py").write_text(ANSWERS)
    command = python("-m", "uvicorn", "answers:app", "--port", "0")
    with serving(command, tmp_path, daemon.url) as address:
        answer = httpx.post(f"{address()}/questions", params={"question": "how it works"})
        assert 202 == answer.status_code
        events = heard(daemon, answer.json()["session"], last=is_done)

    tokens = [("token", word) for word in ("you", "asked", "how", "it", "works")]
    assert [*tokens, ("done", "")] == events


def test_the_progress_of_a_job_from_django(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "project.py").write_text(
        'SECRET_KEY = "of-a-test"\nALLOWED_HOSTS = ["127.0.0.1"]\nROOT_URLCONF = "project"\n'
        'from django.urls import include, path\nurlpatterns = [path("", include("jobs"))]\n'
    )
    command = python("-um", "django", "runserver", "--noreload", "127.0.0.1:0")
    variables = {"DJANGO_SETTINGS_MODULE": "project"}
    with serving(command, tmp_path, daemon.url, **variables) as address:
        answer = httpx.post(f"{address()}/jobs", data={"item": ["a", "b"]})
        assert 202 == answer.status_code
        events = heard(daemon, answer.json()["session"], last=is_done)

    assert [
        ("progress", '{"item":"a","done":1,"of":2}'),
        ("progress", '{"item":"b","done":2,"of":2}'),
        ("done", ""),
    ] == events


def test_notifications_from_express_reach_a_page_through_a_cut(
    daemon: Daemon, browser: Browser, tmp_path: Path
) -> None:
    require("npm:express")
    (tmp_path / "public").mkdir()
    (tmp_path / "public/index.html").write_text(WITH_TICKETS)
    (tmp_path / "app.mjs").write_text(APP)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    with (
        CuttingProxy(daemon.port) as proxy,
        serving([require("node"), "app.mjs"], tmp_path, proxy.url) as address,
        browser.tab() as tab,
    ):
        url = address()
        tab.go(url)
        for count, what in enumerate(["A book", "A lamp"], 1):
            ordered = httpx.post(f"{url}/orders", json={"what": what})
            assert 201 == ordered.status_code
            tab.until(f"document.querySelectorAll('li').length === {count}")
            proxy.cut()
        said = tab.text("#log")

    assert "A book is on its wayA lamp is on its way" == said.replace("\n", "")


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve the files of a directory; yield the address."""

    class Quiet(SimpleHTTPRequestHandler):
        @override
        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    handler = partial(Quiet, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_page_with_htmx_goes_on_after_a_cut(
    start_daemon: StartDaemon, browser: Browser, tmp_path: Path
) -> None:
    require("npm:htmx-ext-sse")
    site = tmp_path / "site"
    site.mkdir()
    (site / "node_modules").symlink_to(NODE_MODULES)
    with served(site) as origin:
        daemon = start_daemon(
            auth=jwt_mode(tmp_path),
            server={"cors_origins": [origin]},
            sessions={"retry_ms": 50, "min_retry_ms": 50},
        )
        with CuttingProxy(daemon.port) as proxy, browser.tab() as tab:
            (site / "index.html").write_text(WITH_HTMX.replace("http://127.0.0.1:8000", proxy.url))
            tab.go(f"{origin}/node_modules/htmx.org/package.json")
            tab.run(f"document.cookie = 'broadcaster_token={TOKEN}; path=/'")
            tab.go(origin)
            tab.run("document.addEventListener('htmx:sseClose', (e) => (why = e.detail.type))")
            for count in (1, 2):
                sh(PUBLISH, daemon.url)
                tab.until(f"document.querySelectorAll('li').length === {count}")
                proxy.cut()
            said = tab.run("document.querySelector('main').innerText")
            with Client(daemon.url, token=TOKEN) as client:
                client.publish("orders", "", event="done")
            tab.until("window.why === 'message'")

    assert ["1", "order", "A", "lamp", "A", "lamp"] == said.split()


def test_a_tool_of_an_mcp_server_is_relayed(daemon: Daemon, tmp_path: Path) -> None:
    require("curl")
    (tmp_path / "builder.py").write_text(BUILDER)
    with serving(python("builder.py"), tmp_path, daemon.url) as address:
        answer = sh(RELAY, daemon.url, {"http://127.0.0.1:8100": address()})
    events = heard(daemon, "build:7", last=lambda event: "docs is built" in event[1])

    assert '"accepted":4' in answer
    assert {"message"} == {name for name, _ in events}
    assert ["1", "2", "3"] == re.findall(r"docs: step (\d) of 3", str(events))
