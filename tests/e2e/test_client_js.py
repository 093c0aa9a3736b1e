"""``/client.js``: tokens, tickets, gaps, and publishing. Through cuts: test_real_clients.py."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from broadcasterd.page.assets import CLIENT
from tests.e2e.browser import Pages
from tests.e2e.devtools import Tab
from tests.e2e.drivers import chromium
from tests.support.daemon import Daemon, StartDaemon
from tests.support.documents import listings_of
from tests.support.lines import Lines
from tests.support.proxy import CuttingProxy
from tests.support.tokens import SECRET, bearer, claims, jwt_mode, sign
from tests.support.tools import require

PAGE = Path(__file__).parents[2] / "docs/client.md"

SOON = 60.0
"""Seconds, for a loaded machine; what is waited for takes a start of Node."""

ALL = ("*",)
TOKEN = sign(claims(subscribe=ALL, publish=ALL))
BAD = sign(claims(subscribe=ALL, publish=ALL), SECRET[::-1])

PRELUDE = """
const text = (await import("node:fs")).readFileSync(process.argv[1], "base64");
const { publish, subscribe, GAP, END } = await import(`data:text/javascript;base64,${text}`);
const url = process.argv[2];
const given = JSON.parse(process.argv[3]);
const print = (seen) => process.stdout.write(`${JSON.stringify(seen)}\\n`);
const show = ({ type, data, lastEventId: id }) => print({ type, data, id });
"""

FOLLOW = """
const onState = ({ state, status }) => print({ state, status });
const events = subscribe(url, { ...options, retry: 50, onState });
for (const name of ["message", GAP, END]) events.addEventListener(name, show);
"""

Heard = Iterator[dict[str, Any]]


@contextmanager
def node(program: str, url: str, **given: object) -> Iterator[Heard]:
    """Run a program with the module, and yield what it prints, until it ends."""
    command = [require("node"), "--input-type=module", "-e", PRELUDE + program]
    process = subprocess.Popen(
        [*command, str(CLIENT), url, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = Lines(process.stdout)

    def heard() -> Heard:
        while (line := lines.next(within=SOON)) is not None:
            yield json.loads(line)

    try:
        yield heard()
    finally:
        process.kill()
        process.wait()
        lines.close()


def publish(daemon: Daemon, *data: str) -> list[str]:
    """Publish plain messages one after the other, and return their ids."""
    answers = [
        httpx.post(daemon.session("s"), json={"data": text}, headers=bearer(TOKEN)) for text in data
    ]
    return [answer.raise_for_status().json()["last_id"] for answer in answers]


def events(heard: Heard) -> Heard:
    """Leave out what is told of the connection."""
    return (each for each in heard if "type" in each)


@pytest.fixture
def daemon(start_daemon: StartDaemon, tmp_path: Path, pages: Pages) -> Daemon:
    return start_daemon(
        auth=jwt_mode(tmp_path),
        server={"cors_origins": [pages.origin]},
        sessions={"retry_ms": 50, "min_retry_ms": 50},
    )


def test_the_daemon_serves_it_to_anyone_and_to_pages_of_listed_origins(
    daemon: Daemon, pages: Pages
) -> None:
    answer = httpx.get(f"{daemon.url}/client.js", headers={"Origin": pages.origin})

    assert CLIENT.read_bytes() == answer.content
    assert "text/javascript; charset=utf-8" == answer.headers["Content-Type"]
    assert pages.origin == answer.headers["Access-Control-Allow-Origin"]


def test_another_token_is_asked_for_when_the_last_one_is_refused(daemon: Daemon) -> None:
    program = """
    const options = { token: async () => given.tokens.shift() };
    print(await publish(url, { n: 1 }, { ...options, event: "message" }));
    """
    with node(program + FOLLOW, daemon.session("s"), tokens=[BAD, TOKEN, BAD, TOKEN]) as heard:
        receipt, opened, event = islice(heard, 3)

    assert 1 == receipt["accepted"]
    assert {"state": "open", "status": 0} == opened
    assert {"type": "message", "data": '{"n":1}', "id": receipt["last_id"]} == event


@pytest.mark.parametrize(
    ("token", "status"), [(BAD, 401), (sign(claims(publish=ALL)), 403)], ids=["bad", "other"]
)
def test_a_refusal_closes_it_and_says_why(daemon: Daemon, token: str, status: int) -> None:
    with node(f"const options = given; {FOLLOW}", daemon.session("s"), token=token) as heard:
        assert [{"state": "closed", "status": status}] == list(heard)


@pytest.mark.slow
def test_a_stream_goes_on_when_its_token_has_expired(daemon: Daemon) -> None:
    program = """
    const { createHmac } = await import("node:crypto");
    const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    function soon() {  // to expire, from when it is asked for
      const exp = Math.ceil(Date.now() / 1000 + 1);
      const claims = { exp, broadcaster: { subscribe: ["*"] } };
      const body = `${encoded({ alg: "HS256" })}.${encoded(claims)}`;
      return `${body}.${createHmac("sha256", given.secret).update(body).digest("base64url")}`;
    }
    let asked = 0;
    const options = { token: () => (asked++ ? given.token : soon()) };
    """
    with node(program + FOLLOW, daemon.session("s"), secret=SECRET, token=TOKEN) as heard:
        assert "open" == next(heard)["state"]
        [before] = publish(daemon, "before")
        first, end = islice(events(heard), 2)
        [after] = publish(daemon, "after")
        second = next(events(heard))

    assert ("before", before) == (first["data"], first["id"])
    assert ("broadcaster.end", "token_expired") == (end["type"], end["data"]["reason"])
    assert ("after", after) == (second["data"], second["id"])


def test_each_attempt_has_a_ticket_of_its_own(daemon: Daemon) -> None:
    program = """
    async function ticket() {
      const Authorization = `Bearer ${given.token}`;
      const headers = { Authorization, "Content-Type": "application/json" };
      const init = { method: "POST", headers, body: JSON.stringify({ session: "s" }) };
      return (await (await fetch(`${given.daemon}/v1/tickets`, init)).json()).ticket;
    }
    const options = { ticket, start: "now" };
    """
    with (
        CuttingProxy(daemon.port) as proxy,
        node(program + FOLLOW, proxy.session("s"), token=TOKEN, daemon=daemon.url) as heard,
    ):
        assert "open" == next(heard)["state"]
        ids = publish(daemon, "1")
        seen = [next(events(heard))["id"]]
        for text in "23":
            proxy.cut()
            ids += publish(daemon, text)
            seen.append(next(events(heard))["id"])
        asked = [request.target for request in proxy.requests]

    assert ids == seen
    assert len(asked) == len({target.partition("ticket=")[2] for target in asked}) == 3


def test_a_gap_is_an_object_and_is_told_once(daemon: Daemon) -> None:
    options = "const options = { ...given, lastEventId: 'lost-1' };"
    with (
        CuttingProxy(daemon.port) as proxy,
        node(options + FOLLOW, proxy.session("s"), token=TOKEN) as heard,
    ):
        gap = next(events(heard))
        publish(daemon, "1")
        first = next(events(heard))
        proxy.cut()
        publish(daemon, "2")
        second = next(events(heard))

    assert {"asked": "lost-1", "oldest": None} == gap["data"]
    assert ("broadcaster.gap", "1", "2") == (gap["type"], first["data"], second["data"])


def test_what_was_not_acknowledged_is_published_again_and_once(daemon: Daemon) -> None:
    with CuttingProxy(daemon.port) as proxy:
        proxy.cut_after(20)  # in the middle of the answer
        program = "print(await publish(url, 'x', given));"
        with node(program, proxy.session("s"), token=TOKEN) as heard:
            [receipt] = heard

    page = httpx.get(
        daemon.session("s"), headers={**bearer(TOKEN), "Accept": "application/json"}
    ).json()
    assert (1, receipt["last_id"]) == (receipt["accepted"], page["next"])
    assert ["x"] == [event["data"] for event in page["events"]]


@pytest.mark.parametrize("status", [401, 413])
def test_a_publish_that_is_refused_fails_at_once(daemon: Daemon, status: int) -> None:
    program = """
    const refused = ({ name, status }) => print({ name, status });
    await publish(url, "x".repeat(given.size), given).catch(refused);
    """
    options = {401: {"token": BAD, "size": 1}, 413: {"token": TOKEN, "size": 2_000_000}}[status]
    with node(program, daemon.session("s"), **options) as heard:
        assert [{"name": "RequestFailed", "status": status}] == list(heard)


@pytest.mark.slow
def test_a_page_follows_with_tickets_through_cuts(daemon: Daemon, pages: Pages, tab: Tab) -> None:
    follow = chromium("client.js with tickets", pages, tab, token=TOKEN)
    with CuttingProxy(daemon.port) as proxy, follow(proxy.session("s")) as seen:
        ids = publish(daemon, "1")
        heard = [next(seen).id]
        for text in "23":
            proxy.cut()
            ids += publish(daemon, text)
            heard.append(next(seen).id)
        httpx.delete(f"{daemon.url}/v1/sessions/s", headers=bearer(TOKEN)).raise_for_status()
        end, *rest = seen

    assert ids == heard
    assert ("broadcaster.end", []) == (end.type, rest)


def test_the_script_of_the_page_runs_as_it_is(daemon: Daemon) -> None:
    [page] = listings_of(PAGE, "html")
    script = page.partition('<script type="module">')[2].partition("</script>")[0]
    _, imported, script = script.partition('/client.js";\n')
    assert imported
    fetched = '(await fetch("/token")).text()'
    assert fetched in script
    script = script.replace(fetched, "given.token").replace("http://127.0.0.1:8000", daemon.url)

    program = f"console.log = (...said) => print({{ said }}); {{ {script} }}"
    with node(program, daemon.session("news"), token=TOKEN) as heard:
        said = [next(heard)["said"] for _ in range(2)]
        httpx.delete(f"{daemon.url}/v1/sessions/news", headers=bearer(TOKEN)).raise_for_status()
        said += [each["said"] for each in heard]

    assert ["open", ""] == said[0]
    assert '{"text":"hello"}' == said[1][1]
    assert [["the stream ends:", "session_closed"], ["closed", ""]] == said[2:]
