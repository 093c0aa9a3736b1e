"""Alerts of a real daemon: fired and cleared by real causes, and told to a real receiver.

Rules are the shipped ones, with small thresholds and times.
"""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from jsonschema import Draft202012Validator

from broadcasterd.alerts.webhooks import ATTEMPT_S
from broadcasterd.config import SHIPPED_RULES
from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, StartDaemon
from tests.support.flood import ANSWER_S, Client, client_of
from tests.support.receiver import Receiver, receiving
from tests.support.talk import ask, eventually, publish
from tests.support.tools import require

SCHEMA = json.loads((Path(__file__).parents[2] / "config/alerts/webhook.schema.json").read_text())
LOG = {"format": "json"}
QUICK: Mapping[str, object] = {"for": 0.05, "clear_below": 1, "clear_after": 0.05}
KEY = b"k" * 32

LOOK_S = 0.05
"""Between two questions: the daemon looks at its rules as often."""

# One session is one too many.
BUSY = {"name": "busy", "metric": "sessions", "threshold": 1, **QUICK}


def shipped(**thresholds: object) -> dict[str, object]:
    """Return the shipped rules of these names, with these thresholds, and quick."""
    rules = {rule.name: msgspec.to_builtins(rule) for rule in SHIPPED_RULES}
    return {
        "interval": LOOK_S,
        "rules": [rules[name] | QUICK | {"threshold": at} for name, at in thresholds.items()],
    }


def records(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    """Return the records of alerts so far."""
    every = map(json.loads, daemon.log().splitlines())
    return [record for record in every if record["event"] == event]


async def firing(client: Client) -> set[str]:
    """Return which alerts fire; the request counts for no latency but its own."""
    alerts = (await client.ask("GET", "/stats")).json()["alerts"]
    return {alert["name"] for alert in alerts if alert["firing"]}


@contextmanager
def delayed_where_it_looks_at_its_memory(daemon: Daemon) -> Iterator[None]:
    """Hold a daemon up for 0.15 s whenever it does that, as it does to answer ``/health``."""
    pid = str(daemon.pid)
    only = ["-e", "inject=openat:delay_enter=150000", "-P", f"/proc/{pid}/statm"]
    command = [require("strace"), *only, "-o", "/dev/null", "-p", pid]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        try:
            assert "attached" in tracer.stderr.readline()
            yield
        finally:
            tracer.send_signal(signal.SIGINT)


async def recorded(daemon: Daemon, event: str, names: Collection[str]) -> dict[str, Any]:
    """Wait until each of these alerts has such a record; return the first of each."""
    found: dict[str, Any] = {}

    async def all_are_there() -> bool:
        for record in records(daemon, event):
            found.setdefault(record["alert"], record)
        return set(names) <= set(found)

    await eventually(all_are_there)
    return found


# --- fired and cleared -----------------------------------------------------------------------


@pytest.mark.slow
async def test_memory_that_events_take_is_told_and_that_it_is_back(
    start_daemon: StartDaemon,
) -> None:
    sections: dict[str, Any] = {
        "sessions": {"max_history_bytes": 2**27},
        "log": LOG,
        "alerts": shipped(memory_warning="memory.warning_mb", memory_critical="memory.critical_mb"),
    }
    daemon = start_daemon(**sections, memory={"warning_mb": 2000, "critical_mb": 4000})
    async with client_of(daemon) as client:
        health = await client.until(lambda h: not h["alerts"], within=ANSWER_S)
        used_mb = health["memory"]["used_mb"]
        daemon.reload(
            **sections,
            memory={"breaker": False, "warning_mb": used_mb + 10, "critical_mb": used_mb + 20},
        )
        await client.until(lambda h: h["memory"]["breaker"] == "off", within=ANSWER_S)
        for _ in range(36):
            await client.publish("s", "x" * 1_000_000)
        names = {"memory_warning", "memory_critical"}
        full = await client.until(lambda h: set(h["alerts"]) == names, within=ANSWER_S)
        await client.ask("DELETE", "/v1/sessions/s")
        await client.until(lambda h: not h["alerts"], within=ANSWER_S)
    told = await recorded(daemon, "alert firing", names)
    await recorded(daemon, "alert resolved", names)

    assert full["memory"]["used_mb"] >= used_mb + 20
    assert ("warning", "notify_team") == (
        told["memory_warning"]["level"],
        told["memory_warning"]["action"],
    )
    assert ("critical", "page_on_call", "used_mb") == (
        told["memory_critical"]["level"],
        told["memory_critical"]["action"],
        told["memory_critical"]["metric"],
    )
    assert told["memory_critical"]["value"] >= told["memory_critical"]["threshold"]


async def test_a_bad_test_run_is_told_and_that_the_next_one_is_good(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    history = tmp_path / "quality-history.jsonl"
    run = '{"date": "2026-11-25", "success_rate": %s, "hooks_seconds": %s}\n'
    history.write_text(run % (0.94, 5.5))
    daemon = start_daemon(
        dashboard={"quality_report": str(history)},
        alerts=shipped(test_failures=0.05, hook_performance=5),
    )
    async with client_of(daemon) as client:
        names = {"test_failures", "hook_performance"}
        await client.until(lambda h: set(h["alerts"]) == names, within=ANSWER_S)
        with history.open("a") as newest:
            newest.write(run % (1, 1))
        await client.until(lambda h: not h["alerts"], within=ANSWER_S)


@pytest.mark.slow
async def test_publishes_that_are_turned_away_are_told_and_that_they_are_not(
    start_daemon: StartDaemon,
) -> None:
    """A session too many is 503: an error, and refused."""
    daemon = start_daemon(
        sessions={"max_sessions": 1},
        log=LOG,
        alerts=shipped(error_rate=0.5, publishes_refused=20),
    )
    names = {"error_rate", "publishes_refused"}
    async with client_of(daemon) as client:
        assert 200 == (await client.publish("a", "x")).status
        with trio.fail_after(ANSWER_S):
            while await firing(client) != names:
                for _ in range(20):
                    assert 503 == (await client.publish("b", "x")).status
                await trio.sleep(LOOK_S)
            while await firing(client):
                for _ in range(20):
                    await client.ask("GET", "/health/live")
                await trio.sleep(LOOK_S)
    told = await recorded(daemon, "alert firing", names)
    over = await recorded(daemon, "alert resolved", names)

    assert told["error_rate"]["value"] >= 0.5 > over["error_rate"]["value"]
    assert told["publishes_refused"]["value"] >= 20 > over["publishes_refused"]["value"]


@pytest.mark.slow
async def test_a_daemon_that_cannot_run_tells_of_its_lag_and_of_slow_answers(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(log=LOG, alerts=shipped(loop_lag=100, health_latency=50))
    names = {"loop_lag", "health_latency"}
    async with client_of(daemon) as client:
        with delayed_where_it_looks_at_its_memory(daemon), trio.fail_after(ANSWER_S):
            await client.health()
            while await firing(client) != names:  # noqa: ASYNC110 (another process changes it)
                await trio.sleep(LOOK_S)
        with trio.fail_after(ANSWER_S):
            while "health_latency" in await firing(client):
                for _ in range(50):
                    await client.health()
            while await firing(client):  # noqa: ASYNC110 (as above)
                await trio.sleep(LOOK_S)
    told = await recorded(daemon, "alert firing", names)
    over = await recorded(daemon, "alert resolved", names)

    assert told["loop_lag"]["value"] >= 100 > over["loop_lag"]["value"]
    assert told["health_latency"]["value"] >= 50 > over["health_latency"]["value"]


# --- told to a receiver ----------------------------------------------------------------------


def told(receiver: Receiver) -> list[tuple[str, str]]:
    """Return the alerts that a receiver was told of, and how they stood."""
    return [(request.news["alert"], request.news["status"]) for request in receiver.received]


@pytest.mark.slow
async def test_a_receiver_that_fails_and_hangs_costs_nothing_and_gets_it_all_when_it_is_back(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(KEY + b"\n")
    fails_and_hangs = [HTTPStatus.INTERNAL_SERVER_ERROR, *[None] * 100]
    async with receiving(*fails_and_hangs) as bad, receiving() as good:
        daemon = start_daemon(
            log={**LOG, "level": "debug"},
            alerts={
                "interval": LOOK_S,
                "webhook_key_file": tmp_path / "key",
                "notify_team": bad.url,
                "rules": [
                    {**BUSY, "action": "notify_team"},
                    {**BUSY, "name": "paged", "severity": "critical", "action": good.url},
                ],
            },
        )
        publish(daemon, "s", "x")
        await bad.wait_for(2)  # the second hangs
        async with client_of(daemon) as client:
            await client.until(lambda h: h["alerts"] == ["busy", "paged"], within=ANSWER_S)
            await client.ask("DELETE", "/v1/sessions/s")
            await client.until(lambda h: not h["alerts"], within=ANSWER_S)
            await good.wait_for(2)
            assert 200 == (await client.publish("s", "y")).status
            await good.wait_for(3)
            assert {("busy", "firing")} == set(told(bad))
            bad.outcomes.clear()
            while len(set(told(bad))) < 2 or told(bad)[-1] == ("busy", "resolved"):
                await bad.wait_for(len(bad.received) + 1)
            await recorded(daemon, "alert delivered", {"busy"})
            stats = (await client.ask("GET", "/stats")).json()
    log = daemon.log()

    assert [("paged", "firing"), ("paged", "resolved"), ("paged", "firing")] == told(good)
    *first, over, again = bad.received
    assert [("busy", "resolved"), ("busy", "firing")] == told(bad)[-2:]
    assert 1 == len({request.headers["webhook-id"] for request in first})
    assert 3 == len({request.headers["webhook-id"] for request in (first[0], over, again)})
    for request in (*bad.received, *good.received):
        Draft202012Validator(SCHEMA).validate(request.news)
        assert request.is_signed_with(KEY)
        assert request.headers["webhook-id"] == request.news["id"]
        assert "/hooks/s3cret?key=s3cret" == request.path
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 300
    assert ("webhook", "critical") == (
        good.received[0].news["action"],
        good.received[0].news["severity"],
    )
    assert f":{daemon.port}" in good.received[0].news["daemon"]
    assert stats["counters"]["notices"]["lost"] == 0
    assert "it answered 500" == records(daemon, "alert delayed")[0]["why"]
    assert "s3cret" not in log
    assert KEY.decode() not in log


async def test_a_receiver_that_hangs_holds_up_no_stop(start_daemon: StartDaemon) -> None:
    async with receiving(None) as receiver:
        daemon = start_daemon(
            alerts={
                "interval": LOOK_S,
                "notify_team": receiver.url,
                "rules": [{**BUSY, "action": "notify_team"}],
            }
        )
        publish(daemon, "s", "x")
        await receiver.wait_for(1)
        began = trio.current_time()
        await trio.to_thread.run_sync(daemon.stop_cleanly)

    assert trio.current_time() - began < ATTEMPT_S


async def test_a_receiver_is_asked_over_tls_and_has_to_be_the_one_it_is_called(
    start_daemon: StartDaemon, certificate: Certificate
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.chain, certificate.key)
    async with receiving(tls=context) as receiver:
        alerts = {
            "interval": LOOK_S,
            "page_on_call": receiver.url,
            "rules": [{**BUSY, "action": "page_on_call"}],
        }
        trusting = {"SSL_CERT_FILE": str(certificate.chain)}
        daemon = start_daemon(alerts=alerts, environment=trusting)
        publish(daemon, "s", "x")
        [request] = await receiver.wait_for(1)

        assert ("busy", "firing") == (request.news["alert"], request.news["status"])
        assert "webhook-signature" not in request.headers

        careful = start_daemon(alerts=alerts, log=LOG)
        publish(careful, "s", "x")
        await recorded(careful, "alert delayed", {"busy"})

        assert 1 == len(receiver.received)
    assert "ConnectError: CERTIFICATE_VERIFY_FAILED" == records(careful, "alert delayed")[0]["why"]


async def test_a_reload_goes_on_with_what_fires_and_tells_the_end_of_what_has_no_rule(
    start_daemon: StartDaemon,
) -> None:
    async with receiving() as receiver:
        alerts: dict[str, Any] = {"interval": LOOK_S, "notify_team": receiver.url}
        staying, going = (BUSY | {"name": n, "action": "notify_team"} for n in ("stays", "goes"))
        daemon = start_daemon(alerts={**alerts, "rules": [staying, going]}, log=LOG)
        publish(daemon, "s", "x")
        await receiver.wait_for(2)
        daemon.reload(alerts={**alerts, "rules": [staying | {"severity": "error"}]}, log=LOG)
        await receiver.wait_for(3)
        health = (await ask(daemon, "GET", "/health")).json()

    assert ["stays"] == health["alerts"]
    assert [("stays", "firing"), ("goes", "firing"), ("goes", "resolved")] == told(receiver)


async def test_a_restart_goes_on_with_what_fires_and_tells_it_once(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    async with receiving() as receiver:
        alerts = {
            "interval": LOOK_S,
            "notify_team": receiver.url,
            "rules": [{**BUSY, "action": "notify_team", "severity": "critical"}],
        }
        environment = {"RUNTIME_DIRECTORY": str(tmp_path)}
        first = start_daemon(alerts=alerts, environment=environment)
        publish(first, "s", "x")
        await receiver.wait_for(1)
        first.stop_cleanly()
        second = start_daemon(alerts=alerts, environment=environment, log=LOG)
        assert ["busy"] == (await ask(second, "GET", "/health")).json()["alerts"]
        async with client_of(second) as client:
            await client.ask("DELETE", "/v1/sessions/s")
        await receiver.wait_for(2)

    assert [("busy", "firing"), ("busy", "resolved")] == told(receiver)
    assert [] == records(second, "alert firing")


async def test_metrics_have_each_alert_by_its_name(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(alerts={"interval": LOOK_S, "rules": [BUSY, {**BUSY, "name": "b"}]})
    publish(daemon, "s", "x")

    async def is_there() -> bool:
        text = (await ask(daemon, "GET", "/metrics")).body.decode()
        return all(f'broadcasterd_alert_firing{{alert="{n}"}} 1.0' in text for n in ("busy", "b"))

    await eventually(is_there)
