"""What operators read can be typed as it is, on a machine where the daemon is a service."""

from __future__ import annotations

from tests.support.documents import listings_of, shell_of
from tests.support.service import PROJECT, Service

DOCS = PROJECT / "docs"
ETC = "/etc/broadcasterd"
DROP_IN = "/srv/drop-in.conf"


def run(service: Service, commands: str, **variables: str) -> str:
    """Run commands in the container as root does, until one fails; return what they print."""
    there = {"BROADCASTERD_URL": service.url, **variables}
    assigned = [f"{name}={value}" for name, value in there.items()]
    text = commands.replace("http://127.0.0.1:8000", service.url).replace("sudo ", "")
    return service.container.run("env", *assigned, "bash", "-euo", "pipefail", "-c", text).stdout


def test_the_commands_of_the_operators_pages_work(service: Service) -> None:
    service.configure(auth={"mode": "jwt", "secret_file": f"{ETC}/secret"})
    service.start()
    run(service, shell_of(PROJECT / "README.md", "Operate"))
    token = run(service, shell_of(DOCS / "page.md")).strip()

    assert token.count(".") == 2

    variables = {"TOKEN": token, "BROADCASTERD_TOKEN": token}
    for page, heading, found in (
        ("operate", None, "healthy"),
        ("runbook", None, "healthy"),
        ("figures", None, "LAST ID"),
        ("systemd", "Keys and certificates", "KEYS="),
    ):
        assert found in run(service, shell_of(DOCS / f"{page}.md", heading), **variables), page


def test_webhooks_are_set_up_as_the_page_says(service: Service) -> None:
    """A URL that is a secret is in a file of root's: see test_alerts.py for where it leads."""
    machine = service.container
    look, set_up = listings_of(DOCS / "alerts.md", "sh")
    [drop_in] = listings_of(DOCS / "alerts.md", "ini")
    service.start()
    machine.write(DROP_IN, drop_in)
    try:
        at_terminal = "script -qec 'systemctl edit broadcasterd' /dev/null"
        commands = set_up.replace("systemctl edit broadcasterd", at_terminal)
        run(service, commands, SYSTEMD_EDITOR=f"cp {DROP_IN}")
        service.restart()

        assert "EnvironmentFiles=/etc/broadcasterd/webhooks" in run(
            service, f"systemctl show {service.unit}"
        )
        assert "600" == run(service, f"stat --format %a {ETC}/webhook_key").strip()
        assert "[]" in run(service, look, TOKEN="none")
    finally:
        run(
            service, f"rm -rf {ETC}/webhook_key {ETC}/webhooks /etc/systemd/system/{service.unit}.d"
        )
