"""The files for Prometheus and Grafana, against the real Prometheus and a real daemon."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.container import until
from tests.support.daemon import STOP_S, Daemon
from tests.support.lines import Lines
from tests.support.talk import ask, publish
from tests.support.tools import require

PROJECT = Path(__file__).parents[2]
CONFIG = PROJECT / "config/prometheus"
ALERTS = CONFIG / "alerts.yml"
DASHBOARD = PROJECT / "config/grafana/dashboard.json"
RUNBOOK = PROJECT / "docs/runbook.md"

START_S = 60.0
SCRAPED_S = 30.0

NAMES = re.compile(r"\b(?:broadcasterd|process)_[a-z_]+\b")


def promtool(*arguments: object) -> str:
    """Run promtool; return what it says."""
    done = subprocess.run(
        [require("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_good_and_fire_when_they_should() -> None:
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text())

    assert f"{len(alerts)} rules found" in promtool("check", "rules", ALERTS)
    assert "SUCCESS" in promtool("test", "rules", CONFIG / "alerts_test.yml")


def test_each_rule_is_shown_to_fire_and_has_a_place_in_the_runbook() -> None:
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text())
    shown = re.findall(r"alertname: (\w+)\n\s+exp_alerts", (CONFIG / "alerts_test.yml").read_text())

    assert sorted(alerts) == sorted(set(shown))
    section = RUNBOOK.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert alerts == re.findall(r"^### (\w+)$", section, re.MULTILINE)


def test_the_scrape_configuration_is_good() -> None:
    assert "SUCCESS" in promtool("check", "config", CONFIG / "scrape.yml")


async def test_every_metric_that_rules_and_dashboard_name_exists(daemon: Daemon) -> None:
    exposed = (await ask(daemon, "GET", "/metrics")).body.decode()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposed, re.MULTILINE))
    there = {
        f"{name}{suffix}"
        for name, kind in families.items()
        for suffix in (["_bucket", "_sum", "_count"] if kind == "histogram" else [""])
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for text in [ALERTS.read_text(), *shown] for name in NAMES.findall(text)}

    assert len(named) > 20
    assert set() == named - there


def test_the_dashboard_has_an_expression_in_each_panel_and_units() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]

    assert all(panel["targets"] and panel["description"] for panel in panels)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert len({panel["id"] for panel in panels}) == len(panels)


# --- the real one ----------------------------------------------------------------------------


@contextmanager
def prometheus(directory: Path, daemon: Daemon) -> Iterator[httpx.Client]:
    """Run Prometheus with our files, but for the port and the interval; give its interface."""
    scrape = (CONFIG / "scrape.yml").read_text()
    assert "127.0.0.1:8000" in scrape
    config = directory / "prometheus.yml"
    config.write_text(
        f"rule_files: [{ALERTS}]\n"
        "global: {evaluation_interval: 1s}\n"
        + scrape.replace("127.0.0.1:8000", f"127.0.0.1:{daemon.port}").replace("15s", "1s")
    )
    command = [
        require("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        said = Lines(process.stderr, record=directory / "prometheus.log")
        try:
            while (line := said.next(within=START_S)) is not None:
                if listening := re.search(r'msg="Listening on" address=(\S+)', line):
                    break
            assert line is not None, (directory / "prometheus.log").read_text()
            address = f"http://{listening[1]}"  # type: ignore[index]
            with httpx.Client(base_url=f"{address}/api/v1/") as client:
                until(lambda: client.get(f"{address}/-/ready").is_success, within=START_S)
                yield client
        finally:
            process.terminate()
            process.wait(STOP_S)
            said.close()


@pytest.mark.slow
async def test_prometheus_scrapes_a_daemon(daemon: Daemon, tmp_path: Path) -> None:
    publish(daemon, "a", "x", "y", "z")
    with prometheus(tmp_path, daemon) as client, trio.fail_after(SCRAPED_S):
        while not (events := values(client, "broadcasterd_events_total")):  # noqa: ASYNC110
            await trio.sleep(0.1)

        assert ["3"] == events
        assert ["1"] == values(client, 'up{job="broadcasterd"}')
        assert ["1"] == values(client, "broadcasterd_publish_duration_seconds_count")

        [target] = result(client, "targets")["activeTargets"]
        assert ("up", "") == (target["health"], target["lastError"])
        rules = [rule for group in result(client, "rules")["groups"] for rule in group["rules"]]
        assert {"ok", "unknown"} >= {rule["health"] for rule in rules}
        for panel in json.loads(DASHBOARD.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$instance", ".*")
                values(client, expression.replace("$__rate_interval", "1m"))


def result(client: httpx.Client, path: str, **query: str) -> Any:  # noqa: ANN401 (JSON)
    answer = client.get(path, params=query)

    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def values(client: httpx.Client, expression: str) -> list[str]:
    """Return what an expression comes to now, one value for each series."""
    return [series["value"][1] for series in result(client, "query", query=expression)["result"]]
