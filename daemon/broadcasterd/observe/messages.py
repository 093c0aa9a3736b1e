"""The MESSAGE_ID of each record that an operator may want to look up, by the text of the record.

``journalctl MESSAGE_ID=…`` finds all of a kind, and ``journalctl -x`` shows beside each what
``systemd/broadcasterd.catalog`` explains. An id is for ever: a new kind of record gets a new one
(``systemd-id128 new``).
"""

from __future__ import annotations

from collections.abc import Mapping

MESSAGE_IDS: Mapping[str, str] = {
    "ready": "bfa459187bc047eca8219acec86822f1",
    "draining": "fc05e2faa2cb4a9ea4dc1cb06c022364",
    "stopped": "91f379fa627247ac875f0b222e7111d1",
    "stream ended": "251ab28c268c4451b2b7fd2dd23b7b73",
    "memory breaker": "5f3992e3ea9f4a5f8da0552f251f2bb7",
    "alert firing": "90302bac84b141bdb02f238f055d5822",
    "alert resolved": "4a31090adbee40a187e5b30bb9f21df2",
    "alert not delivered": "cf36fa793418471686cc2ce32a61e490",
    "handed over": "d3b4c731db4946b9a4f59a51c9554c26",
    "handover taken up": "1428a385997a4cbf8e3da76d2e8da7ab",
    "handover unreadable": "440589d499074067a80f5e219941f4bf",
    "handover failed": "3f1df6c8ad8e4b3cad65340a605be3a5",
    "configuration reloaded": "011cf163a8f14615b1ed8354db9da336",
    "start with the configuration of before": "9de2d971656c413789068015fd0f55e0",
    "reload refused": "3df7a52f33a74c97a37f49b63676b3ac",
    "log records were dropped": "2324a0a6d7f048498cfd3b88cc1e54d8",
    "a task held up the loop": "b0b893fcc9cd49719d54b08e2cbd04b7",
    "a session failed": "d323307cfe7b446d81841b00e9424bca",
    "the engine is down": "0fd5c4d006d04ba58353026cf29ed63e",
    "the engine is up again": "6787cf487c32487d84baf315de5becea",
    "the engine's file was set aside": "25d722e038eb431b9f374b6bc48512bb",
    "the daemon failed": "7f0600b7f5924edf89c6aabcbfc41c92",
}
