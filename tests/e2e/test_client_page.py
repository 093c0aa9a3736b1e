"""docs/client.md: its programs run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.documents import listings_of
from tests.support.lines import Lines

PAGE = Path(__file__).parents[2] / "docs/client.md"

SOON = 60.0
"""Seconds, for a loaded machine; what is waited for takes a start of Python."""


@contextmanager
def running(daemon: Daemon, program: str) -> Iterator[Lines]:
    """Run a program of the page, with the daemon where the page has its own; its output."""
    text = program.replace("http://127.0.0.1:8000", daemon.url)
    assert text != program
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "BROADCASTERD_TOKEN": "t0"},
    )
    assert process.stdout is not None
    lines = Lines(process.stdout)
    try:
        yield lines
    finally:
        process.kill()
        process.wait()
        lines.close()


def rest(lines: Lines) -> list[str]:
    return list(iter(lambda: lines.next(within=SOON), None))


@pytest.mark.slow
def test_the_programs_of_the_page_run_as_they_are(daemon: Daemon) -> None:
    publish, stream, listen = listings_of(PAGE, "python")

    with running(daemon, publish) as out:
        assert [["0"], ["healthy"]] == [line.split()[1:] or [line] for line in rest(out)]
    with running(daemon, listen) as heard, running(daemon, stream) as out:
        said = [heard.next(within=SOON) for _ in range(9)]
        assert ["9"] == rest(out)
        assert "another" == (said[-1] or "").split()[-1]
        assert ["the stream ends: session_closed"] == rest(heard)
