"""The watch: it looks in its interval, and tells what changes in the log and by webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from typing_extensions import override

from broadcasterd.alerts.notice import Notice
from broadcasterd.alerts.rules import Alerts
from broadcasterd.alerts.watch import Watch
from broadcasterd.alerts.webhooks import Webhooks
from broadcasterd.config import Config, Settings, from_mapping
from broadcasterd.figures.counts import Counts
from broadcasterd.figures.watched import Watched
from broadcasterd.observe.messages import MESSAGE_IDS

URL = "https://pager.example/s3cret"
RULE: dict[str, object] = {
    "name": "full",
    "metric": "sessions",
    "threshold": 100,
    "clear_after": 0,
}


class Outbox(Webhooks):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__(Counts())
        self.sent: list[tuple[str, Notice]] = []

    @override
    def send(self, url: str, news: Notice) -> None:
        self.sent.append((url, news))


class World:
    """A watch, and the figures that it reads."""

    def __init__(self, *rules: Mapping[str, object], **alerts: object) -> None:
        self.figures: dict[Watched, float | None] = {}
        self.memory = (200.0, 500.0)
        self.settings = Settings(self.config(*rules, **alerts))
        self.alerts, self.outbox = Alerts(), Outbox()
        self.watch = Watch(
            self.settings,
            self.alerts,
            self.outbox,
            read=self.figures.get,
            memory=lambda: self.memory,
            daemon="host:8000",
        )

    @staticmethod
    def config(*rules: Mapping[str, object], **alerts: object) -> Config:
        return from_mapping({"alerts": {"rules": [*rules], **alerts}})

    def told(self) -> list[tuple[str, str, str]]:
        return [(url, news.alert, news.status) for url, news in self.outbox.sent]


async def records_of(world: World, *figures: float | None) -> list[Any]:
    """Let the watch look at each of these; return the records."""
    with capture_logs() as records:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.watch.run)
            await trio.sleep(0.6)  # between two looks, whatever the interval
            for figure in figures:
                world.figures[Watched.SESSIONS] = figure
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
    return records


@pytest.mark.parametrize("severity", ["info", "warning", "error", "critical"])
async def test_a_record_has_the_priority_of_the_rule_and_its_end_is_news(
    severity: str, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(RULE | {"severity": severity})
    firing, over = await records_of(world, 99, 123.456, 123.456, None)

    assert {
        "log_level": severity,
        "event": "alert firing",
        "alert": "full",
        "metric": "sessions",
        "value": 123.5,
        "threshold": 100.0,
        "severity": severity,
        "action": "journal",
    } == firing
    assert ("alert resolved", "info", None, 2.0) == (
        over["event"],
        over["log_level"],
        over["value"],
        over["lasted_s"],
    )
    assert {firing["event"], over["event"]} <= set(MESSAGE_IDS)
    assert [] == world.told()


async def test_an_action_goes_where_the_settings_say(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rules = [
        RULE | {"name": action.partition(":")[0], "action": action}
        for action in ("journal", "notify_team", "page_on_call", "http://127.0.0.1:7/s3cret")
    ]
    world = World(*rules, page_on_call=URL)
    records = await records_of(world, 100, 0)

    assert [
        (URL, "page_on_call", "firing"),
        ("http://127.0.0.1:7/s3cret", "http", "firing"),
        (URL, "page_on_call", "resolved"),
        ("http://127.0.0.1:7/s3cret", "http", "resolved"),
    ] == world.told()
    assert ["journal", "notify_team", "page_on_call", "webhook"] == [
        record["action"] for record in records[:4]
    ]
    assert "s3cret" not in str(records)


async def test_each_notice_has_a_name_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    world = World(RULE | {"action": "notify_team"}, notify_team=URL)
    await records_of(world, *[100, 0] * 5)

    assert 10 == len({news.id for _, news in world.outbox.sent})
    assert {"host:8000"} == {news.daemon for _, news in world.outbox.sent}


async def test_the_interval_is_a_setting(autojump_clock: trio.testing.MockClock) -> None:
    world = World(RULE | {"for": 1}, interval=0.25)
    await records_of(world, 100)

    assert [] == world.alerts.firing

    world = World(RULE | {"for": 0.5}, interval=0.25)
    await records_of(world, 100)

    assert ["full"] == world.alerts.firing


async def test_a_reload_goes_on_with_what_fires_and_ends_what_has_no_rule(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(RULE, RULE | {"name": "gone", "action": "notify_team"}, notify_team=URL)
    await records_of(world, 100)
    world.settings.replace(world.config(RULE | {"threshold": 50}, notify_team=URL))
    with capture_logs() as records:
        world.watch.reconfigure()

    assert [("alert resolved", "gone")] == [(each["event"], each["alert"]) for each in records]
    assert ["full"] == world.alerts.firing
    assert (URL, "gone", "resolved") == world.told()[-1]


async def test_thresholds_of_memory_follow_what_is_in_force() -> None:
    rule = {"name": "memory", "metric": "used_mb", "threshold": "memory.critical_mb"}
    world = World(rule)
    world.memory = (50.0, 80.0)
    world.watch.reconfigure()

    assert [80.0] == [standing.rule.threshold for standing in world.alerts.standings]
