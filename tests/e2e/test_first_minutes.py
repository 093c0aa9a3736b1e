"""README.md and docs/start.md, typed from the beginning to the end, as a newcomer does."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.devtools import Browser
from tests.support.daemon import StartDaemon
from tests.support.documents import listings_of, shell_of
from tests.support.lines import Lines
from tests.support.tokens import bearer, claims, jwt_mode, sign
from tests.support.tools import NODE_MODULES, ROOT, require

pytestmark = pytest.mark.slow

README, START, HTTP = ROOT / "README.md", ROOT / "docs/start.md", ROOT / "docs/http.md"
HERE = "http://127.0.0.1:8000"
PAGES = "http://127.0.0.1:8080"
IN_THE_CHECKOUT = ("Makefile", "config", "systemd", ".venv")

SOON = 60.0
"""Seconds, for a loaded machine; what is waited for takes a start of Python."""


class Terminals:
    """The terminals of a newcomer in a checkout: what is exported in one is there in all.

    Attributes:
        directory: has the links that make it a checkout.
        variables: of the environment.
        addresses: what is at another address here than in the documents.

    """

    def __init__(self, directory: Path, running: ExitStack) -> None:
        self.directory = directory
        # The environment is made, and `make` would make it anew where it is out of date.
        self.variables = {"MAKEFLAGS": "INSTALLED=", "BROADCASTERD_SERVER__PORT": "0"}
        self.addresses: dict[str, str] = {}
        self._running = running
        for name in IN_THE_CHECKOUT:
            (directory / name).symlink_to(ROOT / name)

    def _shell(self, commands: str) -> list[str]:
        for documented, real in self.addresses.items():
            commands = commands.replace(documented, real)
        return ["bash", "-euo", "pipefail", "-c", commands]

    @property
    def _environment(self) -> Mapping[str, str]:
        own = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
        return {**own, **self.variables}

    def type(self, commands: str, *, status: int = 0) -> str:
        """Run commands to their end, keep what they export, and return what they print."""
        done = subprocess.run(
            self._shell(f"{commands}\necho; echo '# exported'; export -p"),
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        printed, _, exported = done.stdout.partition("\n# exported\n")
        if found := re.search(r'BROADCASTERD_TOKEN="(.+)"', exported):
            self.variables["BROADCASTERD_TOKEN"] = found[1]

        assert status == done.returncode, done.stderr
        return printed + done.stderr

    def leave_running(self, command: str) -> Lines:
        """Start a command in a terminal of its own; return what it prints."""
        process = subprocess.Popen(
            self._shell(f"exec env {command}" if "|" not in command else command),
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # curl draws a meter where there is no terminal
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        lines = Lines(process.stdout)
        self._running.callback(lines.close)
        self._running.callback(process.wait)
        self._running.callback(process.terminate)
        return lines

    def start_daemon(self, command: str) -> list[str]:
        """Run `make run`; return the two lines to paste, with the address of the documents."""
        lines = self.leave_running(command)
        pasted: list[str] = []
        while len(pasted) < 2:
            if (line := next_of(lines)).startswith("curl"):
                pasted.append(line)
        self.addresses[HERE] = re.findall(r"http://127\.0\.0\.1:\d+", pasted[0])[0]
        self.variables["BROADCASTERD_URL"] = self.addresses[HERE]
        return [line.replace(self.addresses[HERE], HERE) for line in pasted]


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    with ExitStack() as running:
        yield Terminals(tmp_path, running)


def next_of(lines: Lines) -> str:
    line = lines.next(within=SOON)
    assert line is not None, "it has ended"
    return line


def rest_of(lines: Lines) -> None:
    """Wait for the end."""
    while lines.next(within=SOON) is not None:
        pass


def until(lines: Lines, text: str) -> None:
    while text not in next_of(lines):
        pass


def test_the_readme_from_the_beginning_to_the_end(terminals: Terminals) -> None:
    for program in ("curl", "make"):
        require(program)
    run, listen, publish = listings_of(README, "sh", "Try")
    pasted = terminals.start_daemon(run)
    hidden = [re.sub(r"Bearer [^\"]+", "Bearer …", line) for line in pasted]
    assert [listen.strip(), publish.strip()] == hidden

    heard = terminals.leave_running(pasted[0])
    assert "retry: 3000" == next_of(heard)
    assert '"accepted":1' in terminals.type(pasted[1])
    until(heard, 'data: {"hello":"world"}')

    terminals.type(shell_of(README, "Authenticate"))
    assert 64 == len((terminals.directory / "secret").read_text().strip())
    commands, page = listings_of(README, "sh", "Listen")
    tails = [terminals.leave_running(command) for command in commands.splitlines()]
    assert '{"hello":"world"}' == next_of(tails[0])
    assert '"events":[{' in terminals.type(page)

    publish, relay, close = listings_of(README, "sh", "Publish")
    terminals.type(publish)
    for text in ("one event", "first", "second"):
        until(heard, f"data: {text}")
        until(tails[0], text)

    one_session = terminals.variables["BROADCASTERD_TOKEN"]
    terminals.type(listings_of(README, "sh", "Authenticate")[0].replace("demo", "'*'"))
    relayed = terminals.leave_running(relay)
    terminals.type(publish.splitlines()[0].replace("demo", "news"))
    until(heard, "data: one event")
    terminals.type(close.replace("demo", "news"))
    until(relayed, '"accepted":1')
    terminals.variables["BROADCASTERD_TOKEN"] = one_session

    terminals.type(close)
    until(heard, "session_closed")
    for tail in tails:
        rest_of(tail)


def test_the_first_ten_minutes(terminals: Terminals, browser: Browser) -> None:
    require("curl")
    run, export, refused, events, pipeline, bad, *later = listings_of(START, "sh")
    tail, resume, serve, open_page, close = later
    [program], [page] = listings_of(START, "python"), listings_of(START, "html")
    *_, refusal = listings_of(START, "text")
    terminals.variables["PYTHONUNBUFFERED"] = "1"
    served = next_of(terminals.leave_running(serve.replace("8080", "0")))
    terminals.addresses[PAGES] = re.findall(r"http://127\.0\.0\.1:\d+", served)[0]

    listen, publish = terminals.start_daemon(run)
    stream = terminals.leave_running(listen)
    assert re.fullmatch(
        r"retry: 3000\n: stream [0-9a-f]{16}", f"{next_of(stream)}\n{next_of(stream)}"
    )
    assert re.search(r'{"session":"demo","accepted":1,"first_id":.*}', terminals.type(publish))

    terminals.type(export)
    assert "HTTP/1.1 401" in terminals.type(refused)
    terminals.type(events)
    terminals.type(pipeline.replace("seq 12", "seq 2").replace("sleep 1", "sleep 0"))
    refusal = refusal.replace(HERE, terminals.addresses[HERE])
    assert refusal.strip() == terminals.type(bad, status=1).strip()
    (terminals.directory / "program.py").write_text(
        program.replace(HERE, terminals.addresses[HERE])
    )
    last_id = terminals.type(".venv/bin/python program.py").split()[-1]

    until(terminals.leave_running(tail), '{"n":2}')
    until(terminals.leave_running(resume), "event: broadcaster.gap")
    resumed = terminals.leave_running(resume.replace("c43fc766-2", last_id))

    (terminals.directory / "page").mkdir(exist_ok=True)
    (terminals.directory / "page/index.html").write_text(
        page.replace(HERE, terminals.addresses[HERE])
    )
    address, greet = open_page.splitlines()
    with browser.tab() as tab:
        tab.go(terminals.type(address).strip())
        terminals.type(greet)
        tab.until("document.body.innerText.includes('hello, page')")
    until(resumed, "data: hello, page")

    assert "HTTP/1.1 204" in terminals.type(close)
    until(stream, "session_closed")


PRELUDE = """
import { EventSource as Plain } from "./node_modules/eventsource/dist/index.js";

const { token, url } = process.env;
const Cookie = `broadcaster_token=${token}`;
const withCookie = (at, init) => fetch(at, { ...init, headers: { ...init.headers, Cookie } });
class EventSource extends Plain {
  constructor(at) {
    super(at, at.includes("ticket=") ? {} : { fetch: withCookie });
    this.addEventListener("error", ({ code }) => console.log("error", code));
    this.addEventListener("message", ({ data }) => console.log("message", data));
  }
}
"""
"""A browser's EventSource sends the cookies of the site; this one is told the cookie."""


def test_the_scripts_for_browsers(start_daemon: StartDaemon, tmp_path: Path) -> None:
    require("npm:eventsource")
    daemon = start_daemon(auth=jwt_mode(tmp_path))
    token = sign(claims(subscribe=("demo", "news"), publish=("demo", "news")))
    for session, event in (("demo", "greeting"), ("news", "message")):
        httpx.post(
            daemon.session(session), json={"data": session, "event": event}, headers=bearer(token)
        ).raise_for_status()
    [cookie], [ticket] = listings_of(README, "js"), listings_of(HTTP, "js")
    for number, script in enumerate((cookie, ticket)):
        program = tmp_path / f"{number}.mjs"
        program.write_text(PRELUDE + script.replace(HERE, daemon.url))
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    with ExitStack() as running:
        terminals = Terminals(tmp_path, running)
        terminals.variables |= {"token": token, "url": daemon.url}
        greeted, told = (terminals.leave_running(f"node {number}.mjs") for number in range(2))

        assert re.fullmatch(r"[0-9a-f]{8}-1 demo", next_of(greeted))
        assert "message news" == next_of(told)
