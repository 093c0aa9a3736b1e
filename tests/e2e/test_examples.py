"""The first minutes: `make run` prints two lines to paste, and they work as they are."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from broadcasterd.access.tokens import KeyRing
from broadcasterd.config import load
from tests.support.daemon import StartDaemon
from tests.support.lines import Lines
from tests.support.tokens import jwt_mode
from tests.support.tools import require

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

SOON = 60.0
"""Seconds, for a loaded machine; what is waited for takes milliseconds, and a start of curl."""


@pytest.mark.parametrize("mode", ["jwt", "none"])
def test_what_is_published_with_the_one_line_is_shown_by_the_other(
    mode: str, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    require("curl")
    daemon = start_daemon(auth={**jwt_mode(tmp_path), "mode": mode})
    _, publish = [daemon.stdout.next(within=SOON) for _ in range(2)]
    printed = (daemon.directory / "stdout").read_text().splitlines()
    listen = next(line for line in printed if line.startswith("curl"))
    listener = subprocess.Popen(["sh", "-c", f"exec {listen}"], stdout=subprocess.PIPE, text=True)
    assert listener.stdout is not None
    heard = Lines(listener.stdout)
    try:
        assert publish is not None
        answer = subprocess.run(["sh", "-c", publish], capture_output=True, text=True, check=True)
        lines = [heard.next(within=SOON) for _ in range(4)]
    finally:
        listener.kill()
        listener.wait()
        heard.close()

    assert '"accepted":1' in answer.stdout
    assert lines[2:] == ["event: greeting", 'data: {"hello":"world"}']


def test_the_secret_for_development_is_made_once_and_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makefile = str(ROOT / "Makefile")
    command = [require("make"), "-f", makefile, "-C", str(tmp_path), ".development/secret"]
    subprocess.run(command, capture_output=True, check=True)
    secret = tmp_path / ".development" / "secret"
    made = secret.read_text()
    subprocess.run(command, capture_output=True, check=True)
    monkeypatch.chdir(tmp_path)
    config = load(ROOT / "config" / "development.toml", {})

    assert secret.read_text() == made
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert len(KeyRing.load(config.auth).keys) == 1
