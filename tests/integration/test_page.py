"""The page's files, its stream of figures, and what an operator can end, on a real daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broadcasterd.page.assets import POLICY
from tests.support.daemon import Daemon, StartDaemon
from tests.support.following import Following
from tests.support.sse import Event
from tests.support.talk import ask, connected, following, publish
from tests.support.tokens import bearer, claims, jwt_mode, sign

PATH = "/v1/stats/events"


async def next_of(stream: Following) -> Event:
    event = await stream.event()
    assert event is not None
    return event


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/app.js", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
async def test_a_file_of_the_page_is_served_and_not_twice(
    daemon: Daemon, path: str, kind: str
) -> None:
    first = await ask(daemon, "GET", path)
    tag = first.headers["etag"]
    head = await ask(daemon, "HEAD", path)
    again = await ask(daemon, "GET", path, {"If-None-Match": f'"other", W/{tag}'})

    assert (200, kind, POLICY) == (
        first.status,
        first.headers["content-type"],
        first.headers["content-security-policy"],
    )
    assert "nosniff" == first.headers["x-content-type-options"]
    assert (200, b"", str(len(first.body))) == (
        head.status,
        head.body,
        head.headers["content-length"],
    )
    assert (304, b"", tag) == (again.status, again.body, again.headers["etag"])
    assert "content-length" not in again.headers


@pytest.mark.parametrize(
    "path", ["/page/", "/page/none.js", "/page/../app.js", "/page/%2e%2e%2fassets.py", "/page"]
)
async def test_there_is_nothing_else(daemon: Daemon, path: str) -> None:
    assert 404 == (await ask(daemon, "GET", path)).status


async def test_switched_off_it_is_not_there(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(dashboard={"enabled": False})
    statuses = [(await ask(daemon, "GET", path)).status for path in ("/", "/page/app.js")]

    assert [404, 404] == statuses


async def test_the_figures_are_a_stream_of_the_daemon_itself(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    report = tmp_path / "quality.jsonl"
    report.write_text('{"date": "2026-11-25", "success_rate": 1}\n')
    daemon = start_daemon(dashboard={"quality_report": str(report)})
    publish(daemon, "s", 1, 2)
    async with connected(daemon) as client:
        stream = await client.follow(PATH)
        history, first, second = await next_of(stream), await next_of(stream), await next_of(stream)
    frames = [json.loads(each.data) for each in (first, second)]

    assert ["history", "stats", "stats"] == [each.type for each in (history, first, second)]
    assert "2026-11-25" == json.loads(history.data)["quality"][0]["date"]
    assert 2 <= frames[0]["stats"]["counters"]["events"]
    assert frames[0]["point"][0] < frames[1]["point"][0]


async def test_a_listing_is_filtered_and_sorted_by_the_daemon(daemon: Daemon) -> None:
    for name, count in [("b", 3), ("a", 1), ("c", 2)]:
        publish(daemon, f"job:{name}", *range(count))
    publish(daemon, "other", 1)
    answer = await ask(daemon, "GET", "/v1/sessions?q=JOB&sort=-retained_events&offset=1")
    page = answer.json()

    assert ["job:c", "job:a"] == [session["session"] for session in page["sessions"]]
    assert (3, 4) == (page["found"], page["total"])


async def test_one_stream_is_ended_and_its_token_stays_good(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path))
    admin = bearer(sign(claims(admin=True)))
    listener = bearer(sign(claims(subscribe=("s",), sub="me")))
    async with (
        following(daemon, "s", headers=listener) as stream,
        following(daemon, "s", headers=listener) as other,
    ):
        stream_id = stream.heard[1].removeprefix(": stream ")
        listed = (await ask(daemon, "GET", "/v1/sessions/s/streams", admin)).json()
        ended = await ask(daemon, "DELETE", f"/v1/streams/{stream_id}", admin)
        end = await next_of(stream)
        left = (await ask(daemon, "GET", "/v1/sessions/s/streams", admin)).json()
        again = await ask(daemon, "DELETE", f"/v1/streams/{stream_id}", admin)
        other_id = other.heard[1].removeprefix(": stream ")
    still = await ask(daemon, "GET", "/v1/sessions/s", listener)

    assert {stream_id, other_id} == {each["stream"] for each in listed["streams"]}
    assert {"me"} == {each["subject"] for each in listed["streams"]}
    assert {"reason": "revoked", "reconnect": False} == json.loads(end.data)
    assert ([other_id], 204, 404, 200) == (
        [each["stream"] for each in left["streams"]],
        ended.status,
        again.status,
        still.status,
    )
