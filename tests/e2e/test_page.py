"""The live page in Chromium, on a daemon under load: what an operator sees and does there.

Each state is left as pictures in ``build/screenshots/``, of a desk in light and of a phone in dark;
in each, axe-core finds nothing, nothing is cut, and nothing lies on another.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from tests.e2e.devtools import Browser, Tab
from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.flood import PATIENCE_S, client_of, flood, new_sessions
from tests.support.redis import redis
from tests.support.tokens import bearer, claims, jwt_mode, sign
from tests.support.tools import ROOT, require

pytestmark = pytest.mark.slow

PICTURES = ROOT / "build" / "screenshots"
SCREENS = ((1280, "light"), (390, "dark"))
"""Each width and each scheme once: what they do to a page, they do apart."""

TOKEN = sign(claims(subscribe=("*",), publish=("*",), admin=True, sub="operator"))
WITH_TOKEN = bearer(TOKEN)

LISTENERS = 12
"""Of the load: three sessions, each with so many thirds of them."""

ROOM_MB, MORE_MB = 25.0, 50.0
"""The thresholds, above what the daemon takes at first; a flood fills both in a second."""

CROWD = {"name": "crowd", "metric": "streams", "threshold": LISTENERS, "clear_after": 1}
"""An alert that fires while there is load."""

QUALITY = [
    {"date": "2026-11-23T06:00:00Z", "success_rate": 0.981, "hooks_seconds": 42.5, "runs": 3},
    {"date": "2026-11-24T06:00:00Z", "success_rate": 1.0, "hooks_seconds": 40},
    {"date": "2026-11-25T06:00:00Z", "success_rate": 1.0},
]

CUT = (Path(__file__).parent / "pages" / "cut.js").read_text()
"""What is cut, or lies on something else."""


class Operator:
    """Somebody who looks at the page of one daemon, in one tab."""

    def __init__(self, tab: Tab, daemon: Daemon) -> None:
        self.tab = tab
        self.daemon = daemon
        self._axe = Path(require("npm:axe-core"), "axe.min.js").read_text()

    def open(self, place: str = "", *, token: str | None = TOKEN) -> None:
        """Open a part of the page, with a token that was entered before."""
        tab = self.tab
        tab.wear(*SCREENS[0])
        kept = "" if token is None else f"sessionStorage.setItem('broadcasterd.token', '{token}');"
        tab.go("about:blank")
        tab.faults.clear()
        with tab.beginning(f"sessionStorage.clear(); localStorage.clear(); {kept}"):
            tab.go(f"{self.daemon.url}/{place}")
        tab.until("!!document.querySelector('main > *')")
        if token is not None:
            self.until_live()

    def until_live(self) -> None:
        """Wait until figures come."""
        self.tab.until(
            "document.querySelector('#link').textContent.includes('live')"
            " && document.querySelector('#verdict').textContent"
        )

    def wait_for_calm(self) -> None:
        """Close the sessions of a flood, and wait until everything is accepted again."""
        with httpx.Client(base_url=self.daemon.url, headers=WITH_TOKEN) as http:
            left = http.get("/v1/sessions", params={"q": "flood:", "limit": 1000}).json()
            for session in left["sessions"]:
                http.delete(f"/v1/sessions/{session['session']}")
            trio.run(self._until_closed)

    async def _until_closed(self) -> None:
        async with client_of(self.daemon) as client:
            await client.until_breaker("closed", within=PATIENCE_S)

    def look(self, name: str) -> None:
        """Leave pictures of a state, and check that there is nothing wrong with any."""
        tab = self.tab
        for width, scheme in SCREENS:
            tab.wear(width, scheme)
            tab.picture(PICTURES / f"{name}-{width}-{scheme}.png")

            assert [] == tab.run(CUT), f"{name} at {width} px"
            assert [] == self.barriers(), f"{name} at {width} px, {scheme}"
        tab.wear(*SCREENS[0])

    def barriers(self) -> list[str]:
        """Return what keeps people from using the page, as axe-core finds it."""
        if not self.tab.run("'axe' in window"):
            self.tab.run(f"{self._axe}; true")
        found = self.tab.run(
            "axe.run(document, {resultTypes: ['violations'], selectors: false})"
            ".then(({violations}) =>"
            " violations.flatMap(({id, nodes}) => nodes.map(({html, failureSummary}) =>"
            " `${id}: ${html.slice(0, 200)} ${failureSummary}`)))"
        )
        assert isinstance(found, list)
        return found

    def chart(self, title: str) -> str:
        """Return an expression for the figure with a chart of this title."""
        is_it = f"each.querySelector('h2').textContent === {json.dumps(title)}"
        return f"[...document.querySelectorAll('figure')].find((each) => {is_it})"

    def no_faults(self, *, besides: str = "") -> None:
        """Check that the browser has nothing to say against the page."""
        assert [] == [each for each in self.tab.faults if not besides or besides not in each]


@pytest.fixture(scope="module")
def operator(
    tmp_path_factory: pytest.TempPathFactory, launch: Launch, browser: Browser
) -> Iterator[Operator]:
    """Have one daemon and one tab for all."""
    require("npm:axe-core")
    directory = tmp_path_factory.mktemp("page")
    with browser.tab() as tab:
        daemon = start(directory, launch)
        operator = Operator(tab, daemon)
        try:
            used = httpx.get(f"{daemon.url}/health").json()["memory"]["used_mb"]
            daemon.reload(**settings(directory, used, port=0))
            yield operator
        finally:
            operator.daemon.stop_cleanly()


def start(directory: Path, launch: Launch, *, port: int = 0) -> Daemon:
    sections: Mapping[str, Mapping[str, object]] = settings(directory, port=port)
    return Daemon.start(directory, launch, environment=None, **sections)


def settings(directory: Path, used_mb: float = 1000, port: int = 0) -> dict[str, dict[str, object]]:
    reports = directory / "quality.jsonl"
    reports.write_text("".join(f"{json.dumps(each)}\n" for each in QUALITY))
    return {
        "server": {"port": port},
        "auth": jwt_mode(directory),
        "sessions": {"retry_ms": 500},
        "alerts": {"rules": [CROWD]},
        "dashboard": {"quality_report": str(reports)},
        "memory": {
            "warning_mb": used_mb + ROOM_MB,
            "critical_mb": used_mb + MORE_MB,
            "sample_interval": 0.2,
        },
    }


@contextmanager
def load(daemon: Daemon, *, publish: bool = True) -> Iterator[None]:
    """Have listeners and a publisher on three sessions."""
    ends = threading.Event()

    async def listen(http: httpx.AsyncClient, session: int) -> None:
        async with http.stream("GET", f"/v1/sessions/chat:{session}/events") as stream:
            async for _ in stream.aiter_raw():
                pass

    async def work() -> None:
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(
                base_url=daemon.url, headers=WITH_TOKEN, limits=limits, timeout=30
            ) as http,
            trio.open_nursery() as nursery,
        ):
            for number in range(LISTENERS):
                nursery.start_soon(listen, http, number % 3)
            number = 0
            while not ends.is_set():
                number += 1
                path = f"/v1/sessions/chat:{number % 3}/events"
                if publish:
                    await http.post(path, json={"data": {"number": number, "text": "x" * 200}})
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(work,))
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def test_without_a_token_the_page_asks_for_one_and_says_how_to_make_it(operator: Operator) -> None:
    operator.open(token=None)
    tab = operator.tab
    tab.until("location.hash === '#/token'")
    operator.no_faults()

    assert "broadcasterd token --admin" in tab.text("main")
    operator.look("token")
    tab.fill("#token", "not.a.token")
    tab.click("form button")
    tab.until("!document.querySelector('.trouble').hidden")
    tab.fill("#token", TOKEN)
    tab.click("form button")
    operator.until_live()
    tab.until("location.hash === '#/' && !!document.querySelector('.plot path.line')")
    operator.no_faults(besides="401")


def test_charts_move_under_load_and_figures_have_units(operator: Operator) -> None:
    operator.open()
    tab, delivered = operator.tab, operator.chart("Delivered")
    with load(operator.daemon):
        tab.until(f"parseFloat({delivered}.querySelector('.legend b').textContent) > 50")
        line = f"{delivered}.querySelector('.plot path.line').getAttribute('d')"
        before = tab.run(line)
        tab.until(f"{line} !== {json.dumps(before)}")
        tab.click(".toolbar button")  # 5 min
        time_to_have_a_shape(tab)
        operator.look("overview")
        tiles = tab.run(
            "[...document.querySelectorAll('.tiles dd')].map((tile) => tile.textContent)"
        )

    units = ["MB", "", "", "/s", "/s", "s", "s", "s"]
    assert all(tile.endswith(unit) for tile, unit in zip(tiles, units, strict=True)), tiles
    assert "98.1 %" in tab.text("[aria-label='Quality of test runs'] table")
    operator.no_faults()


def time_to_have_a_shape(tab: Tab, points: int = 8) -> None:
    """Wait for so many frames: pictures are for people."""
    line = "document.querySelector('.plot path.line').getAttribute('d')"
    tab.until(f"{line}.match(/L/g)?.length > {points}")


def test_the_figures_under_the_pointer_are_told_and_a_drag_zooms(operator: Operator) -> None:
    operator.open()
    tab, chart = operator.tab, operator.chart("Memory")
    tab.until(f"!!{chart}.querySelector('.plot path.line')")
    left, top, width = tab.run(
        f"(() => {{ const box = {chart}.querySelector('.plot').getBoundingClientRect();"
        " return [box.left, box.top, box.width]; })()"
    )
    tab.mouse("mouseMoved", left + width - 12, top + 60)
    when = tab.until(f"{chart}.querySelector('.when').textContent")
    dots = tab.run("document.querySelectorAll('.dot').length")
    tab.mouse("mousePressed", left + width - 60, top + 60)
    tab.mouse("mouseMoved", left + width - 12, top + 60)
    tab.mouse("mouseReleased", left + width - 12, top + 60)
    shown = tab.until(
        "document.querySelector('.range').textContent.match(/^[0-9: \\u2013]+$/)?.[0]"
    )
    operator.look("zoomed")

    assert [2, 2] == [when.count(":"), shown.count("\N{EN DASH}") * 2]
    assert dots > 2, "the same moment is shown in every chart"
    tab.click(".toolbar .primary")
    tab.until("document.querySelector('.toolbar .primary').hidden")
    operator.no_faults()


def test_keys_move_in_time_zoom_and_come_back_and_each_chart_has_a_table(
    operator: Operator,
) -> None:
    operator.open()
    tab, chart = operator.tab, operator.chart("Memory")
    tab.until(f"!!{chart}.querySelector('.plot path.line')")
    tab.run(f"{chart}.querySelector('.plot').focus()")
    tab.press("ArrowLeft")
    told = tab.until(
        f"{chart}.querySelector('.plot').getAttribute('aria-valuetext').match(/^\\d\\d:.*MB/)?.[0]"
    )
    tab.press("+")
    tab.until("!document.querySelector('.toolbar .primary').hidden")
    tab.press("Escape")
    tab.until("document.querySelector('.toolbar .primary').hidden")
    tab.run("document.querySelectorAll('figure details').forEach((each) => each.open = true)")
    tab.until(f"{chart}.querySelectorAll('tbody tr').length > 0")
    operator.look("tables")

    assert "used" in told
    operator.no_faults()


def test_an_alert_is_named_for_as_long_as_it_fires(operator: Operator) -> None:
    operator.open()
    tab = operator.tab
    with load(operator.daemon, publish=False):
        tab.until("document.querySelector('#alerts').checkVisibility()")
        told = tab.text("#alerts")
        tab.until("document.querySelector('.alerts')?.textContent.includes('crowd')")
        operator.look("alert")
    tab.until("document.querySelector('#alerts').hidden")

    assert told.endswith("An alert fires: crowd")
    operator.no_faults()


def test_the_breaker_opens_and_closes_in_view(operator: Operator) -> None:
    operator.open()
    tab = operator.tab
    tab.until("document.querySelector('.breaker')?.textContent === 'closed'")
    tab.click(".toolbar button")
    large = new_sessions(size=900_000)
    trio.run(partial(flood, operator.daemon, large, seconds=0, refusals=1, token=TOKEN))
    tab.until("!!document.querySelector('.band.open')")
    tab.until("document.querySelector('.verdict').textContent.includes('unhealthy')")
    operator.look("breaker-open")
    tab.until("document.querySelector('.breaker').textContent === 'closed'", within=60)
    operator.look("breaker-closed")

    transitions = tab.text(".transitions")
    assert "warning → open" in transitions
    assert "→ closed" in transitions
    refused = operator.chart("Errors and refusals, by cause")
    assert "refused: breaker" in tab.run(f"{refused}.querySelector('.legend').innerText")
    operator.no_faults()


def test_sessions_are_filtered_sorted_and_paged(operator: Operator) -> None:
    operator.wait_for_calm()
    with httpx.Client(base_url=operator.daemon.url, headers=WITH_TOKEN) as http:
        for number in range(120):
            http.post(f"/v1/sessions/job:{number:03}/events", json={"data": "x" * number})
    operator.open("#/sessions")
    tab = operator.tab
    names = "[...document.querySelectorAll('tbody a')].map((each) => each.textContent).join()"
    tab.fill("#filter", "JOB:")
    tab.click("[data-key='session']")
    first = ",".join(f"job:{number:03}" for number in range(50))
    tab.until(f"{names} === '{first}'")
    place = tab.text(".place")
    tab.click(".toolbar button:last-child")
    tab.until(f"{names}.startsWith('job:050')")
    tab.click("[data-key='retained_bytes']")
    tab.until(f"{names}.startsWith('job:119')")
    operator.look("sessions")

    assert place.startswith("1\N{EN DASH}50 of 120")
    assert "descending" == tab.run(
        "document.querySelector('[data-key=retained_bytes]').closest('th').ariaSort"
    )
    operator.no_faults()


def in_a_thread(listen: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=listen)
    thread.start()
    return thread


def test_an_event_that_is_published_on_the_page_arrives_in_the_session(operator: Operator) -> None:
    operator.wait_for_calm()
    http = httpx.Client(base_url=operator.daemon.url, headers=WITH_TOKEN, timeout=30)
    heard: list[str] = []
    opened = threading.Event()

    def listen() -> None:
        with http.stream("GET", "/v1/sessions/room:1/events") as stream:
            for line in stream.iter_lines():
                heard.append(line)
                opened.set()

    listener = in_a_thread(listen)
    assert opened.wait(10)
    operator.open("#/sessions")
    tab = operator.tab
    tab.fill("#filter", "room:1")
    tab.click("a[href='#/sessions/room%3A1']")
    tab.until("document.querySelectorAll('[aria-labelledby=listening] tbody tr').length === 2")
    tab.fill("#kind", "greeting")
    tab.fill("#data", '{"text": "<b>hello</b>", "list": [1, 2]}')
    tab.click("form button")
    shown = tab.until("document.querySelector('.events pre')?.textContent")
    told = tab.until("document.querySelector('.result').textContent")
    tab.fill("#data", "two\nlines, no JSON")
    tab.click("form button")
    tab.until("document.querySelectorAll('.events pre').length === 2")
    operator.look("session")
    tab.click("[aria-labelledby='listening'] button")
    tab.until("document.querySelector('dialog').open")
    operator.look("asked")
    tab.click("dialog .danger")
    listener.join(10)
    http.close()
    tab.until("document.querySelectorAll('[aria-labelledby=listening] tbody tr').length === 1")

    assert '{\n  "text": "<b>hello</b>",\n  "list": [\n    1,\n    2\n  ]\n}' == shown
    assert "went to 2 subscribers" in told
    assert "event: greeting" in heard
    assert 'data: {"reason":"revoked","reconnect":false}' in heard
    operator.no_faults()


def test_a_session_is_closed_once_that_is_confirmed(operator: Operator) -> None:
    operator.wait_for_calm()
    with httpx.Client(base_url=operator.daemon.url, headers=WITH_TOKEN) as http:
        http.post("/v1/sessions/over/events", json={"data": 1})
        operator.open("#/sessions/over")
        tab = operator.tab
        tab.until("document.querySelectorAll('.events pre').length === 1")
        tab.click(".title .danger")
        tab.click("dialog button:first-child")
        tab.until("!document.querySelector('dialog')")
        still_there = http.get("/v1/sessions/over").status_code
        tab.click(".title .danger")
        tab.click("dialog .danger")
        tab.until("document.querySelector('.trouble').textContent.includes('closed')")
        gone = http.get("/v1/sessions/over").status_code

    assert (200, 404) == (still_there, gone)
    operator.no_faults()


def test_the_page_says_when_it_is_disconnected_and_goes_on_by_itself(
    operator: Operator, launch: Launch
) -> None:
    operator.open()
    tab, before = operator.tab, operator.daemon
    tab.until("!!document.querySelector('.plot path.line')")
    before.stop_cleanly()
    told = tab.until("document.querySelector('#link.lost')?.textContent")
    tab.until("document.querySelector('#wait').textContent.includes('trying again')")
    operator.look("disconnected")
    operator.daemon = start(before.directory, launch, port=before.port)
    operator.until_live()
    tab.until("document.querySelector('.plot .mark-label')?.textContent === 'restart'")
    operator.look("restarted")

    assert "Disconnected since" in told
    operator.no_faults(besides="network: Failed to load resource")


def test_the_choice_of_light_or_dark_is_kept(operator: Operator) -> None:
    operator.open()
    tab = operator.tab
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.run(ground)
    tab.click("#theme")
    tab.click("#theme")
    dark = tab.run(ground)
    tab.go(f"{operator.daemon.url}/#/sessions")
    operator.until_live()

    assert dark != light
    assert "dark" == tab.run("document.documentElement.dataset.theme")
    operator.no_faults()


def test_an_engine_that_is_down_is_told_with_the_reason_and_raises_an_alert(
    operator: Operator, start_daemon: StartDaemon
) -> None:
    require("redis-server")
    fact = "document.querySelector('.facts .engine')?.textContent"
    with redis() as server:
        engine = {"kind": "redis", "url": server.url}
        another = Operator(operator.tab, start_daemon(engine=engine))
        another.open(token=None)
        tab = another.tab
        tab.until(f"{fact} === 'redis'")
        server.kill()
        told = tab.until(f"{fact}?.includes('is down') && {fact}")
        tab.until("document.querySelector('#verdict').textContent.includes('degraded')")
        tab.until("document.querySelector('.alerts')?.textContent.includes('engine_down')")
        another.look("engine-down")
        server.start()
        tab.until(f"{fact} === 'redis'")
        tab.until("document.querySelector('#verdict').textContent.includes('healthy')")
        tab.go("about:blank")  # else it is told of the end of that daemon

    assert told.startswith("▲ redis is down: ")
    another.no_faults()


def test_where_no_token_is_asked_for_none_is_needed(
    operator: Operator, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon()
    tab = operator.tab
    tab.go("about:blank")
    tab.faults.clear()
    tab.go(daemon.url)
    tab.until("document.querySelector('#link')?.textContent.includes('live')")
    tab.until("!!document.querySelector('.plot path.line')")
    tab.go("about:blank")  # else it is told of the end of that daemon

    operator.no_faults()
