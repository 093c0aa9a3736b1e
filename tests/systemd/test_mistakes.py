"""Mistakes of an operator and every way to stop: no stream ends that could go on.

docs/operate.md has the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broadcasterd.observe.messages import MESSAGE_IDS
from tests.support.container import until
from tests.support.daemon import as_toml
from tests.support.service import DEFAULTS, Service

TLS = {"tls_certificate": "/etc/broadcasterd/chain.pem", "tls_key": "/etc/broadcasterd/key.pem"}

BAD = {
    "a typing error": ("[server]\nprot = 1\n", "server.prot: unknown key"),
    "a secret that is missing": ("[auth]\nmode = 'jwt'\n", "auth.secret_file"),
    "a certificate that is missing": (
        as_toml({**DEFAULTS, "server": TLS}),
        "server.tls_certificate",
    ),
}


def test_no_mistake_in_a_file_costs_a_stream(serving: Service) -> None:
    serving.container.write("/etc/broadcasterd/key.pem", "")
    secret = serving.container.root / "etc/broadcasterd/secret"
    aside = secret.rename(secret.with_name("aside"))
    try:
        with serving.listening("s") as listener:
            for name, (text, why) in BAD.items():
                serving.write_configuration(text)
                serving.restart()
                serving.publish("s", name)
                listener.until(name)

                assert why in serving.show("StatusText"), name
            told = serving.journal(
                f"MESSAGE_ID={MESSAGE_IDS['start with the configuration of before']}"
            )

            assert len(BAD) == len(told)
            assert all(
                why in record["WHY"] for record, (_, why) in zip(told, BAD.values(), strict=True)
            )

            path = serving.container.root / "etc/broadcasterd/broadcasterd.toml"
            serving.configure(sessions={"retry_ms": 4321})
            path.chmod(0)
            serving.restart()
            assert "cannot be read: Permission denied" in serving.show("StatusText")

            path.chmod(0o644)
            serving.container.run("systemctl", "reload", serving.unit)
            until(lambda: "that of before" not in serving.show("StatusText"))
            serving.publish("s", "mended")
            listener.until("mended")
    finally:
        aside.rename(secret)


def test_a_start_with_a_bad_file_is_tried_again_less_and_less_often(service: Service) -> None:
    service.write_configuration("[server]\nprot = 1\n")
    done = service.container.run("systemctl", "start", service.unit, check=False)

    assert 0 != done.returncode
    until(lambda: int(service.show("NRestarts")) >= 1)
    assert any("status=2/INVALIDARGUMENT" in m for m in service.messages("_PID=1"))
    told = service.journal("_TRANSPORT=stdout")[0]

    assert "server.prot: unknown key" in told["MESSAGE"]
    assert "3" == told["PRIORITY"]

    service.configure()  # and it serves as soon as the file is mended
    assert 200 == service.get("/health").status_code


@pytest.mark.parametrize(
    "command",
    [
        ("restart", "broadcasterd.socket"),
        ("kill", "--kill-whom=main", "--signal=TERM", "broadcasterd.service"),
    ],
    ids=" ".join,
)
def test_what_a_start_follows_closes_no_stream(command: Sequence[str], serving: Service) -> None:
    pid = serving.pid
    with serving.listening("s") as listener:
        serving.publish("s", "before")
        serving.container.run("systemctl", *command)
        serving.until_restarted(pid)
        serving.publish("s", "after")

        assert [listener.until(data).data for data in ("before", "after")] == ["before", "after"]
        assert 1 == len(serving.journal(f"MESSAGE_ID={MESSAGE_IDS['handover taken up']}"))


@pytest.mark.parametrize(
    "command",
    [
        ("stop", "broadcasterd.socket"),
        ("isolate", "rescue.target"),  # as a shutdown does
    ],
    ids=" ".join,
)
def test_a_stop_for_good_tells_every_stream(command: Sequence[str], serving: Service) -> None:
    with serving.listening("s") as listener:
        serving.container.run("systemctl", "start", "broadcasterd.socket")
        serving.container.run("systemctl", *command)

        assert {"reason": "draining", "reconnect": True} == listener.until_end()
    until(lambda: serving.show("ActiveState") == "inactive")
    assert "0" == serving.show("NFileDescriptorStore")
    serving.container.run("systemctl", "isolate", "multi-user.target")


HOG = """
import sys
from pathlib import Path
cgroup = Path(sys.argv[1])
version_2 = cgroup / "memory.events"
told = version_2 if version_2.exists() else cgroup / "memory.oom_control"

def killed():
    fields = dict(line.split() for line in told.read_text().splitlines())
    return int(fields["oom_kill"])

(cgroup / "cgroup.procs").write_text("0")
taken = []
while not killed():
    taken.append(b"x" * 1_000_000)
"""
"""Takes memory in a cgroup until the kernel has ended another process for want of it: the daemon,
which offers itself by its score."""


def test_one_that_the_kernel_ends_for_want_of_memory_is_replaced(service: Service) -> None:
    service.start("MemoryHigh=infinity\nMemoryMax=200M\nOOMScoreAdjust=1000\nRestartSec=100ms\n")
    pid = service.pid
    controllers = "/sys/fs/cgroup"
    if (service.container.root / "sys/fs/cgroup/memory").is_dir():  # version 1
        controllers += "/memory"
    with service.listening("s") as listener:
        last_id = service.publish("s", "before")["last_id"]
        listener.until("before")

        # systemd stops what is left in the cgroup, and is sometimes faster than the end of this.
        service.container.run(
            "/usr/bin/python3",
            *("-c", HOG, controllers + service.show("ControlGroup")),
            check=False,
        )

        assert listener.is_over()
    service.until_restarted(pid)
    service.publish("s", "after")
    page = service.page("s", last_event_id=last_id)

    assert {"asked": last_id, "oldest": page["events"][0]["id"]} == page["gap"]
    assert ["after"] == [event["data"] for event in page["events"]]
    assert "1" == service.show("NRestarts")
    assert any("status=9/KILL" in message for message in service.messages("_PID=1"))
