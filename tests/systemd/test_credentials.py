"""Keys and certificates under the unit: root's files, renewed by `systemctl reload`."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import ssl
from base64 import urlsafe_b64encode
from pathlib import Path

import httpx

from broadcasterd.observe.messages import MESSAGE_IDS
from tests.support.certificate import Certificate
from tests.support.container import SOON_S, Container
from tests.support.documents import listings_of
from tests.support.service import PORT, PROJECT, Service
from tests.support.tokens import bearer, claims, sign

ETC = "/etc/broadcasterd"
DOCUMENT = PROJECT / "docs/systemd.md"
RELOADED = f"MESSAGE_ID={MESSAGE_IDS['configuration reloaded']}"
ROTATIONS = 4
UNCHECKED = ssl._create_unverified_context()  # noqa: S323 (its bytes are compared)


def rotate(service: Service) -> str:
    """Give the service another secret, and return it; it is not told yet."""
    secret = secrets.token_urlsafe(48)
    service.container.write(f"{ETC}/secret", f"{secret}\n", mode=0o600)
    return secret


def reload(service: Service) -> bool:
    """Reload; return whether systemd says that it was done."""
    return service.container.run("systemctl", "reload", service.unit, check=False).returncode == 0


def status(service: Service, secret: str, **header: str) -> int:
    """Publish with a token that a secret signed; return the status of the answer."""
    token = sign(claims(publish=("s",)), secret, "HS256", **header)
    url = f"{service.url}/v1/sessions/s/events"
    return httpx.post(url, json={"data": 1}, headers=bearer(token), timeout=SOON_S).status_code


def fingerprint(secret: str) -> str:
    """Return what a record may say of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()[:12]


def test_each_of_many_rotations_is_in_force_once_reload_returns(service: Service) -> None:
    service.configure(auth={"mode": "jwt", "previous_secret_ttl": "10m"})
    first = rotate(service)
    service.start()
    used = [first]
    for _ in range(ROTATIONS):
        used.append(rotate(service))

        assert reload(service)
        assert 200 == status(service, used[-1])
    records = service.journal(RELOADED)

    assert ROTATIONS == len(records)
    for secret, record in zip(used[1:], records, strict=True):
        assert f"secret {fingerprint(secret)}" == record["KEYS"].split(", ")[0]
    said = [record["MESSAGE"] for record in service.journal()]

    assert not [secret for secret in used if any(secret in message for message in said)]
    assert not [message for message in said if "did not renew" in message]
    digits = f"tr -d '\\n' < {ETC}/secret | sha256sum | head -c 12"

    assert fingerprint(used[-1]) == service.container.run("/bin/sh", "-c", digits).stdout

    # A restart takes a new one as well, and goes on with those before.
    pid = service.pid
    used.append(rotate(service))
    service.restart()
    service.until_restarted(pid)

    assert {200} == {status(service, secret) for secret in used[-4:]}

    service.configure(auth={"mode": "jwt", "previous_secret_ttl": 0})

    assert reload(service)
    assert [200, 401] == [status(service, secret) for secret in (used[-1], used[-2])]


def test_the_keys_of_a_jwk_set_come_and_go_with_its_file(service: Service) -> None:
    service.configure(auth={"mode": "jwt"})
    service.start()
    secret = secrets.token_urlsafe(48)
    k = urlsafe_b64encode(secret.encode()).decode()
    jwks = json.dumps({"keys": [{"kty": "oct", "kid": "2026", "k": k}]})

    assert 401 == status(service, secret, kid="2026")

    for content, expected in ((jwks, 200), ("", 401)):  # a missing one stays as it was
        service.container.write(f"{ETC}/jwks.json", content, mode=0o600)

        assert reload(service)
        assert expected == status(service, secret, kid="2026")
    (service.container.root / f"{ETC[1:]}/jwks.json").unlink()


def test_reload_fails_exactly_when_it_was_refused(serving: Service) -> None:
    for _ in range(2):
        serving.write_configuration("[server]\nprot = 1\n")

        assert not reload(serving)

        serving.configure()

        assert reload(serving)
    assert "refused" not in serving.show("StatusText")
    told = serving.journal(f"MESSAGE_ID={MESSAGE_IDS['reload refused']}")

    assert 2 == len(told) == len(serving.journal(RELOADED))
    assert any(
        "the reload was refused: server.prot" in m for m in serving.messages("_TRANSPORT=stdout")
    )


class Certbot:
    """What certbot keeps for a name: links to the newest of each file, for root alone."""

    NAME = "events.example.org"

    def __init__(self, machine: Container, tmp_path: Path) -> None:
        self._directory = machine.root / "etc/letsencrypt"
        self._tmp_path = tmp_path
        self._renewals = 0
        self.live = self._directory / "live" / self.NAME
        self.archive = self._directory / "archive" / self.NAME
        for path in (self.live, self.archive):
            path.mkdir(parents=True)
            path.parent.chmod(0o700)

    def renew(self) -> bytes:
        """Obtain another certificate; return it in DER."""
        self._renewals += 1
        made = Certificate.make(self._tmp_path)
        for name, content in (("fullchain", made.chain), ("privkey", made.key)):
            file = self.archive / f"{name}{self._renewals}.pem"
            file.write_bytes(content.read_bytes())
            file.chmod(0o600)
            self.point(name, self._renewals)
        return ssl.PEM_cert_to_DER_cert(made.chain.read_text())

    def point(self, name: str, number: int) -> None:
        """Have a link lead to the file with this number."""
        link = self.live / f"{name}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{self.NAME}/{name}{number}.pem")


def presented(service: Service) -> bytes | None:
    """Return the certificate that is shown to whoever connects now."""
    with (
        socket.create_connection((service.host, PORT), timeout=SOON_S) as raw,
        UNCHECKED.wrap_socket(raw) as tls,
    ):
        return tls.getpeercert(binary_form=True)


def test_what_certbot_keeps_is_served_and_renewed(service: Service, tmp_path: Path) -> None:
    machine = service.container
    certbot = Certbot(machine, tmp_path)
    first = certbot.renew()
    service.start()
    [commands] = listings_of(DOCUMENT, "sh", "TLS with certbot")
    machine.run("/bin/sh", "-ec", commands.replace("sudo ", ""))
    tls = machine.root / f"{ETC[1:]}/tls"
    try:
        assert first == presented(service)
        with service.listening("s", tls=UNCHECKED) as listener:
            second = certbot.renew()
            machine.run("/etc/letsencrypt/renewal-hooks/deploy/broadcasterd")

            assert second == presented(service)

            third = certbot.renew()
            certbot.point("privkey", 2)

            assert not reload(service)
            assert second == presented(service)
            service.until_status("server.tls_key = ")

            certbot.point("privkey", 3)

            assert reload(service)
            assert third == presented(service)
            httpx.post(
                f"https://{service.host}:{PORT}/v1/sessions/s/events",
                json={"data": "still"},
                verify=UNCHECKED,
            )
            listener.until("still")
        digits = hashlib.sha256(third).hexdigest()[:12]

        assert service.journal(RELOADED)[-1]["CERTIFICATE"].startswith(digits)

        tls.unlink()
        service.restart()

        assert third == presented(service), "and not in the clear"
        assert "server.tls_certificate" in service.show("StatusText")
        assert not reload(service)
        assert third == presented(service)
    finally:
        tls.unlink(missing_ok=True)
