"""``/stats`` and ``/metrics`` of a real daemon: what was done is what is counted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, StartDaemon
from tests.support.talk import JSON, NDJSON, TEXT, ask, eventually, following, publish, target
from tests.support.tokens import bearer, claims, jwt_mode, sign
from tests.support.tools import require

ADMIN = bearer(sign(claims(admin=True)))


async def stats_of(daemon: Daemon, headers: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401
    answer = await ask(daemon, "GET", "/stats", headers)

    assert 200 == answer.status
    return json.loads(answer.body)


async def metrics_status(
    daemon: Daemon, headers: Mapping[str, str] | None = None, path: str = "/metrics"
) -> int:
    return (await ask(daemon, "GET", path, headers)).status


async def test_what_was_done_is_what_is_counted(daemon: Daemon) -> None:
    async with following(daemon, "a"), following(daemon, "a") as other:
        publish(daemon, "a", "x", "y")
        for headers, body in [(TEXT, b"z"), (NDJSON, b'{"data": 1}\n{"data": 2}\n'), (JSON, b"{")]:
            await ask(daemon, "POST", target("a"), headers, body)
        seen = [await other.event() for _ in range(5)]
        stats = await stats_of(daemon)
    counters = stats["counters"]

    assert None not in seen

    assert (5, 10, 2) == (counters["events"], counters["deliveries"], counters["streams_opened"])
    assert {
        "json": {"200": 1, "400": 1},
        "ndjson": {"200": 1},
        "text": {"200": 1},
    } == counters["publishes"]
    assert (1, 2) == (stats["sessions"], stats["streams"])

    async def both_ended() -> bool:
        ended = (await stats_of(daemon))["counters"]["streams_ended"]
        return bool(ended["client_gone"] == 2)

    await eventually(both_ended)

    assert 10 == (await stats_of(daemon))["counters"]["deliveries"]


async def test_what_is_refused_counts_by_its_cause(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(
        auth=jwt_mode(tmp_path), limits={"publish_rate": 0.001, "publish_burst": 1}
    )
    publisher = bearer(sign(claims(publish=("*",), sub="p")))
    for expected in (200, 429, 429):
        answer = await ask(daemon, "POST", target("a"), TEXT | publisher, b"x")
        assert expected == answer.status
    await ask(daemon, "GET", target("a"))
    stats = await stats_of(daemon, ADMIN)

    assert {"rate": 2, "token": 1, "limits": 0}.items() <= stats["counters"]["refused"].items()
    assert {"text": {"200": 1, "429": 2}} == stats["counters"]["publishes"]


def test_performance_is_where_jq_looks_for_it(daemon: Daemon) -> None:
    publish(daemon, "a", "x")
    shown = subprocess.run(
        ["sh", "-c", f"{require('curl')} -sS {daemon.url}/stats | {require('jq')} .performance"],
        capture_output=True,
        check=True,
    )
    performance = json.loads(shown.stdout)

    assert 1 == performance["latency_ms"]["publish"]["count"]
    assert 0 < performance["rates"]["10s"]["events_per_s"] <= 1


async def test_requests_count_by_their_route_and_never_by_what_users_chose(daemon: Daemon) -> None:
    for _ in range(3):
        await ask(daemon, "GET", "/health/live")
    for name in ("nobody", "no-one"):
        await ask(daemon, "GET", f"/v1/sessions/{name}")
    text = (await ask(daemon, "GET", "/metrics")).body.decode()

    route = 'method="GET",route="/health/live",status="200"'
    assert f"broadcasterd_requests_total{{{route}}} 3.0" in text
    assert 'route="/v1/sessions/{session}",status="404"} 2.0' in text
    assert "nobody" not in text


# --- who may see them ------------------------------------------------------------------------


async def test_this_machine_needs_no_token_where_a_setting_says_so(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    auth = jwt_mode(tmp_path)
    closed, opened = (
        start_daemon(auth=auth),
        start_daemon(auth={**auth, "metrics_from_loopback": True}),
    )

    assert (401, 200) == (await metrics_status(closed), await metrics_status(closed, ADMIN))
    assert (200, 200) == (await metrics_status(opened), await metrics_status(opened, ADMIN))
    assert 401 == await metrics_status(opened, path="/stats")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.0.2.7"},
        {"Forwarded": "for=192.0.2.7"},
        {"X-Real-IP": "192.0.2.7"},
        {"Via": "1.1 proxy"},
        {"Origin": "https://example.org"},
        {"Host": "rebound.example"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_neither_a_proxy_nor_a_page_on_it_is_this_machine(
    headers: Mapping[str, str], opened: Daemon
) -> None:
    assert 401 == await metrics_status(opened, headers)


@pytest.fixture
def opened(start_daemon: StartDaemon, tmp_path: Path) -> Daemon:
    """Start a daemon that lets this machine see its metrics."""
    return start_daemon(auth={**jwt_mode(tmp_path), "metrics_from_loopback": True})


async def test_the_client_of_a_trusted_proxy_is_another_machine(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(
        auth={**jwt_mode(tmp_path), "metrics_from_loopback": True},
        limits={"trusted_proxies": ["127.0.0.0/8"]},
    )

    assert 401 == await metrics_status(daemon, {"X-Forwarded-For": "192.0.2.7"})
    assert 200 == await metrics_status(daemon)
