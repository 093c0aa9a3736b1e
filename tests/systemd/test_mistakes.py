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


def test_no_mistake_in_a_file_costs_a_stream(service: Service) -> None:
    service.start()
    service.container.write("/etc/broadcasterd/key.pem", "")
    secret = service.container.root / "etc/broadcasterd/secret"
    aside = secret.rename(secret.with_name("aside"))
    try:
        with service.listening("s") as listener:
            for name, (text, why) in BAD.items():
                service.write_configuration(text)
                service.restart()
                service.publish("s", name)
                listener.until(name)

                assert why in service.show("StatusText"), name
            told = service.journal(
                f"MESSAGE_ID={MESSAGE_IDS['start with the configuration of before']}"
            )

            assert len(BAD) == len(told)
            assert all(
                why in record["WHY"] for record, (_, why) in zip(told, BAD.values(), strict=True)
            )

            path = service.container.root / "etc/broadcasterd/broadcasterd.toml"
            service.configure(sessions={"retry_ms": 4321})
            path.chmod(0)
            service.restart()
            assert "cannot be read: Permission denied" in service.show("StatusText")

            path.chmod(0o644)
            service.container.run("systemctl", "reload", service.unit)
            until(lambda: "that of before" not in service.show("StatusText"))
            service.publish("s", "mended")
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
        ("kill", "--kill-whom=main", "--signal=TERM", "broadcasterd.service"),
        ("restart", "broadcasterd.socket"),
    ],
    ids=" ".join,
)
def test_what_a_start_follows_closes_no_stream(command: Sequence[str], service: Service) -> None:
    service.start()
    pid = service.pid
    with service.listening("s") as listener:
        service.publish("s", "before")
        service.container.run("systemctl", *command)
        service.until_restarted(pid)
        service.publish("s", "after")

        assert [listener.until(data).data for data in ("before", "after")] == ["before", "after"]
        assert 1 == len(service.journal(f"MESSAGE_ID={MESSAGE_IDS['handover taken up']}"))


@pytest.mark.parametrize(
    "command",
    [
        ("stop", "broadcasterd.socket"),
        ("isolate", "rescue.target"),  # as a shutdown does
    ],
    ids=" ".join,
)
def test_a_stop_for_good_tells_every_stream(command: Sequence[str], service: Service) -> None:
    service.start()
    with service.listening("s") as listener:
        service.container.run("systemctl", "start", "broadcasterd.socket")
        service.container.run("systemctl", *command)

        assert {"reason": "draining", "reconnect": True} == listener.until_end()
    until(lambda: service.show("ActiveState") == "inactive")
    assert "0" == service.show("NFileDescriptorStore")
    service.container.run("systemctl", "isolate", "multi-user.target")


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
