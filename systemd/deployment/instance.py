"""An instance of broadcasterd under systemd: its restart, its address, and a token for it."""

from __future__ import annotations

import filecmp
import os
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployment.commands import reread_units_and_catalog, run, said_since
from deployment.files import replace_file
from deployment.releases import CURRENT, STAGING, DeploymentError

ETC = Path("/etc/broadcasterd")
CREDENTIALS = {
    "secret": "secret",
    "jwks.json": "jwks.json",
    "tls_certificate.pem": "tls/fullchain.pem",
    "tls_key.pem": "tls/privkey.pem",
    "webhook_key": "webhook_key",
    "engine_password": "engine_password",
    "sentinel_password": "sentinel_password",
    "engine_certificate.pem": "engine_certificate.pem",
    "engine_key.pem": "engine_key.pem",
}
"""The files of ``LoadCredential=`` of the unit, by their names there."""

TOKEN_S = 3600
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 (one of them will do)


@dataclass(frozen=True, slots=True)
class Instance:
    """The names of an instance: its link, its unit and its files.

    Attributes:
        link: leads to the release that it starts from.
        unit: of systemd, without its suffix.
        settings: the configuration.
        prefix: of its other files in ``/etc/broadcasterd``.

    """

    name: str
    link: str
    unit: str
    settings: Path
    prefix: str

    @property
    def secret(self) -> Path:
        """The key of tokens."""
        return self._credential("secret")

    def credentials(self) -> dict[str, Path]:
        """Return the files that are there of those that the unit hands over, by their names."""
        files = {name: self._credential(name) for name in CREDENTIALS}
        return {name: path for name, path in files.items() if path.exists()}

    def _credential(self, name: str) -> Path:
        return ETC / f"{self.prefix}{CREDENTIALS[name]}"

    def check_settings(self, release: Path) -> None:
        """Check that a release takes the configuration.

        Raises:
            DeploymentError: it does not; the error has its reasons.

        """
        self._broadcasterd(release, "check-config", "--config", str(self.settings))

    def keep_settings(self, release: Path) -> None:
        """Keep the configuration with a release that takes it: to be put back with it."""
        replace_file(self.settings, release / self._kept)

    def settings_are_kept(self, release: Path) -> bool:
        """Whether the configuration is the one that a release last ran with: it takes it."""
        kept = release / self._kept
        return kept.exists() and filecmp.cmp(self.settings, kept, shallow=False)

    def put_settings_back(self, release: Path) -> str:
        """Have the configuration be the one that a release last ran with, where it refuses ours.

        Returns:
            What was done, in words; nothing if nothing was.

        Raises:
            DeploymentError: it refuses the one that it ran with as well, or there is none.

        """
        try:
            self.check_settings(release)
        except DeploymentError:
            if not (kept := release / self._kept).exists():
                raise
            refused = self.settings.with_name(f"{self.settings.name}.refused-by-{release.name}")
            replace_file(self.settings, refused)
            replace_file(kept, self.settings)
            self.check_settings(release)
            return (
                f"{release.name} does not take {self.settings}: it is the one again that it last"
                f" ran with; the other is {refused}"
            )
        return ""

    @property
    def _kept(self) -> str:
        return f"{self.name}.toml"

    def token(self, release: Path, sessions: str) -> str | None:
        """Return a token for every action on some sessions; ``None`` if none is needed.

        Raises:
            DeploymentError: the configuration has no secret that could sign one.

        """
        if token := os.environ.get("BROADCASTERD_TOKEN"):
            return token
        if self._settings("auth", "mode") == "none":
            return None
        everything = ["--subscribe", sessions, "--publish", sessions, "--ttl", str(TOKEN_S)]
        try:
            return self._broadcasterd(
                release, "token", "--config", str(self.settings), *everything
            ).strip()
        except DeploymentError as error:
            raise DeploymentError(f"$BROADCASTERD_TOKEN is not set, and {error}") from error

    def url(self) -> str:
        """Return the URL at which it listens.

        Raises:
            DeploymentError: systemd does not know.

        """
        listen = run("systemctl", "show", "--property=Listen", "--value", f"{self.unit}.socket")
        host, _, port = listen.partition(" ")[0].rpartition(":")
        if not host:
            raise DeploymentError(f"{self.unit}.socket has no TCP address: {listen.strip()!r}")
        return f"{self.scheme()}://{EVERY_ADDRESS.get(host, host)}:{port}"

    def scheme(self) -> str:
        """Return the scheme of its URL."""
        if "tls_certificate.pem" in self.credentials():
            return "https"
        return "https" if self._settings("server", "tls_certificate") else "http"

    def keeps_events(self) -> bool:
        """Whether it keeps events in a file."""
        return self._settings("engine", "kind") == "sqlite"

    def start_timeout(self) -> str:
        """Return how long a start may take, as systemd says it."""
        unit = f"{self.unit}.service"
        return run("systemctl", "show", "--property=TimeoutStartUSec", "--value", unit).strip()

    def is_running(self) -> bool:
        """Whether a process of it runs."""
        return self.pid() != 0

    def restart(self) -> int:
        """Have systemd restart it, with units and catalog as they are now; return its process id.

        Raises:
            DeploymentError: it does not become ready; the error has its words.

        """
        since = time.time()
        reread_units_and_catalog()
        try:
            run("systemctl", "restart", f"{self.unit}.service")
        except DeploymentError as error:
            raise DeploymentError(
                f"{error}\n{said_since(f'{self.unit}.service', since)}"
            ) from error
        return self.pid()

    def pid(self) -> int:
        """Return its process id; 0 if there is none."""
        return int(run("systemctl", "show", "--property=MainPID", "--value", self.unit))

    def _settings(self, section: str, key: str) -> object:
        try:
            return tomllib.loads(self.settings.read_text("utf-8")).get(section, {}).get(key)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise DeploymentError(f"{self.settings}: {error}") from error

    def _broadcasterd(self, release: Path, *arguments: str) -> str:
        with self._credentials() as directory:
            environment = os.environ | {"CREDENTIALS_DIRECTORY": directory}
            return run(str(release / "bin/broadcasterd"), *arguments, environment=environment)

    @contextmanager
    def _credentials(self) -> Iterator[str]:
        """Have a directory as systemd makes one of ``LoadCredential=``."""
        with tempfile.TemporaryDirectory() as directory:
            for name, path in self.credentials().items():
                Path(directory, name).symlink_to(path)
            yield directory


PRODUCTION = Instance("production", CURRENT, "broadcasterd", ETC / "broadcasterd.toml", "")
INSTANCES = {
    "production": PRODUCTION,
    "staging": Instance(
        "staging", STAGING, "broadcasterd@staging", ETC / "staging.toml", "staging."
    ),
}
