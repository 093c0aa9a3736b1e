"""docs/start/recipes.md: each recipe does what it says, as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.devtools import Tab
from tests.support.daemon import StartDaemon
from tests.support.documents import listings_of
from tests.support.lines import Lines
from tests.support.proxy import CuttingProxy
from tests.support.tokens import bearer, claims, jwt_mode, sign
from tests.support.tools import NODE_MODULES, require

PAGE = Path(__file__).parents[2] / "docs/start/recipes.md"
TOKEN = sign(claims(subscribe=("user:*", "build:*"), publish=("user:*", "build:*")))

SOON = 15.0
"""Seconds, for a loaded machine; what is waited for takes a start of Node."""


def environment(url: str) -> dict[str, str]:
    """Return that of a shell with the daemon's address, a token, and our commands."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"BROADCASTERD_URL": url, "BROADCASTERD_TOKEN": TOKEN, "PORT": "0", "PATH": path}
    return {**os.environ, **own}


@pytest.mark.slow
def test_a_shell_pipeline(start_daemon: StartDaemon, tmp_path: Path) -> None:
    require("curl")
    daemon = start_daemon(auth=jwt_mode(tmp_path))
    pipeline, curl = listings_of(PAGE, "sh")
    publish, tail = pipeline.splitlines()

    def sh(command: str) -> str:
        return subprocess.check_output(
            ["sh", "-c", command], env=environment(daemon.url), text=True
        )

    assert '"accepted":2' in sh(publish)
    with subprocess.Popen(
        ["sh", "-c", f"exec {tail}"], env=environment(daemon.url), stdout=subprocess.PIPE, text=True
    ) as listening:
        assert listening.stdout is not None
        assert "done\n" == listening.stdout.readline()
        assert '"accepted":1' in sh(curl)
        assert "it is built\n" == listening.stdout.readline()
        url = f"{daemon.url}/v1/sessions/build:7"
        httpx.delete(url, headers=bearer(TOKEN)).raise_for_status()
        assert "" == listening.stdout.read()


@pytest.mark.slow
def test_notifications_from_express_reach_a_page_through_a_cut(
    start_daemon: StartDaemon, tab: Tab, tmp_path: Path
) -> None:
    require("npm:express")
    daemon = start_daemon(auth=jwt_mode(tmp_path), server={"cors_origins": ["*"]})
    [app], [page] = listings_of(PAGE, "js"), listings_of(PAGE, "html")
    (tmp_path / "public").mkdir()
    (tmp_path / "public/index.html").write_text(page)
    (tmp_path / "app.mjs").write_text(app)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    with CuttingProxy(daemon.port) as proxy:
        process = subprocess.Popen(
            [require("node"), "app.mjs"],
            cwd=tmp_path,
            env=environment(proxy.url),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = Lines(process.stdout)
        try:
            url = lines.next(within=SOON)
            assert url is not None
            tab.go(url)
            for count, what in enumerate(["A book", "A lamp"], 1):
                ordered = httpx.post(f"{url}/orders", json={"what": what})
                assert 201 == ordered.status_code
                tab.until(f"document.querySelectorAll('li').length === {count}")
                proxy.cut()
            said = tab.text("#log")
            tab.go("about:blank")
        finally:
            process.kill()
            process.wait()
            lines.close()

    assert "A book is on its wayA lamp is on its way" == said.replace("\n", "")
