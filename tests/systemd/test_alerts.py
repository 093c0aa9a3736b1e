"""Alerts of the service: its records in the journal, and a webhook through the sandbox."""

from __future__ import annotations

from pathlib import Path

import trio

from broadcasterd.observe.messages import MESSAGE_IDS
from tests.support.container import until
from tests.support.documents import listings_of
from tests.support.receiver import receiving
from tests.support.service import Service

KEY = b"0123456789abcdef0123456789abcdef"
SECRETS = {
    "webhook_key": f"{KEY.decode()}\n",
    "webhooks": "BROADCASTERD_ALERTS__PAGE_ON_CALL={url}\n",
}

DOCUMENT = Path(__file__).parents[2] / "docs/alerts.md"
[DROP_IN] = listings_of(DOCUMENT, "ini")
SETTINGS = DROP_IN.removeprefix("[Service]\n")


async def test_an_alert_is_in_the_journal_and_goes_out_signed_with_the_credential(
    service: Service,
) -> None:
    rule = {
        "name": "memory_critical",
        "metric": "used_mb",
        "threshold": "memory.warning_mb",
        "severity": "critical",
        "action": "page_on_call",
    }
    async with receiving() as receiver:

        def start() -> None:
            for name, text in SECRETS.items():
                path = f"/etc/broadcasterd/{name}"
                service.container.write(path, text.format(url=receiver.url))
                service.container.run("chmod", "600", path)
            service.configure(memory={"warning_mb": 1}, alerts={"rules": [rule]})
            service.start(SETTINGS)
            until(lambda: service.journal("ALERT=memory_critical"))

        await trio.to_thread.run_sync(start)
        [request] = await receiver.wait_for(1)
    for name in SECRETS:
        service.container.run("rm", f"/etc/broadcasterd/{name}")
    [record] = service.journal(f"MESSAGE_ID={MESSAGE_IDS['alert firing']}")

    assert request.is_signed_with(KEY)
    assert ("memory_critical", "firing") == (request.news["alert"], request.news["status"])
    assert {
        "PRIORITY": "2",
        "ALERT": "memory_critical",
        "METRIC": "used_mb",
        "THRESHOLD": "1.0",
        "SEVERITY": "critical",
        "ACTION": "page_on_call",
    }.items() <= record.items()
    assert float(record["VALUE"]) > 1
    assert "s3cret" not in str(service.journal())
    service.until_status("alerts: memory_critical")

    explained = service.container.run("journalctl", "-x", "ALERT=memory_critical").stdout

    assert "Subject: Alert memory_critical of broadcasterd is firing (critical)" in explained
