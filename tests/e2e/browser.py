"""Chromium without a window, and a server for the pages that it opens.

A page runs its client by itself and posts what it sees back to its server. Its origin is another
than the daemon's, so everything it does is under CORS.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

from typing_extensions import override

from broadcasterd.page.assets import CLIENT

HERE = Path(__file__).parent

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # needs privileges that a container does not have
    "--disable-dev-shm-usage",  # nor does it have the memory there
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-features=BackForwardCache",  # a page that was left is gone, with its connections
    "--disable-sync",
    "--log-level=3",  # fatal: it misses a desktop, and says so in many words
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
)


class _Handler(SimpleHTTPRequestHandler):
    """Serves ``pages/`` and ``clients/``, and takes the reports of the pages."""

    protocol_version = "HTTP/1.1"
    server: Pages

    def __init__(self, *args: object) -> None:
        super().__init__(*args, directory=str(HERE))  # type: ignore[arg-type]

    @override
    def translate_path(self, path: str) -> str:
        """Find a file, also the daemon's own, or for an import that leaves ``.js`` to a bundler."""
        # Tests of cuts load it from here, and so see its streams alone pass the proxy.
        if path == f"/{CLIENT.name}":
            return str(CLIENT)
        found = super().translate_path(path)
        return found if Path(found).exists() else f"{found}.js"

    def do_POST(self) -> None:
        """Take a report: a JSON array of what a client saw."""
        for seen in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
            self.server.reports.put(seen)
        self.send_response(204)
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: what matters is in the reports."""


class Pages(ThreadingHTTPServer):
    """A context: inside it, pages are served on ``origin``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.reports: queue.Queue[dict[str, object]] = queue.Queue()

    def url(self, *, client: str, stream: str, token: str = "") -> str:
        """Return the address of the page that runs ``client`` on ``stream``, with a token."""
        query = urlencode({"client": client, "stream": stream, "token": token})
        return f"{self.origin}/pages/index.html?{query}"


@contextmanager
def serve_pages() -> Iterator[Pages]:
    """Serve the pages from a thread."""
    with Pages() as pages:
        thread = threading.Thread(target=pages.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield pages
        finally:
            pages.shutdown()
            thread.join()


@contextmanager
def running(chromium: str, pipe: tuple[int, int]) -> Iterator[None]:
    """Have a browser run that has never been anywhere.

    Args:
        chromium: the program.
        pipe: two descriptors that the browser reads commands from, and writes its answers to.

    """
    # Not below pytest's directory: the path of a socket, which it puts there, has to be short.
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as home:
        # It takes them as 3 and 4, which here are others'. A shell moves them; by their paths,
        # for sh knows no descriptors of two digits.
        moved = " ".join(
            f"{n}{way}/proc/self/fd/{fd}" for n, way, fd in zip((3, 4), "<>", pipe, strict=True)
        )
        shell = ["sh", "-c", f'exec "$@" {moved}', "sh"]
        profile = f"--user-data-dir={home}/profile"
        browser = subprocess.Popen(
            [*shell, chromium, *FLAGS, profile, "--remote-debugging-pipe", "about:blank"],
            pass_fds=pipe,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home, "TMPDIR": home},
            start_new_session=True,  # a browser is many processes: they end as one group
        )
        try:
            yield
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
