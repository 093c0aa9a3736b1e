"""What is installed and of no use to a command is not imported by it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broadcasterd.observe.imports import uncollected

PROGRAM = """
import json, sys
from broadcasterd import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as exited:
    found = {name.partition(".")[0] for name in sys.modules}
    told = {"h2", "pygments", "rich", "structlog", "trio"}
    print(json.dumps([exited.code, sorted(found & told)]))
"""

EXCEPTION = """
import sys
from broadcasterd.observe.imports import import_structlog
import_structlog()
import rich.traceback
from broadcasterd.config import Log
from broadcasterd.observe.log import log, logging_as
rich.traceback.install(show_locals=True)
with logging_as(Log(format="console")):
    try:
        secret = "hidden"
        raise ValueError(f"{len(secret)} characters")
    except ValueError:
        log.exception("it failed")
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FORCE_COLOR": "1"},  # rich obeys it
    )


def test_a_daemon_does_not_carry_it(tmp_path: Path) -> None:
    """It stops at its configuration, when all is imported."""
    config = tmp_path / "broadcasterd.toml"
    config.write_text("server.prot = 1")

    ran = run(PROGRAM, "serve", "--config", str(config))

    assert [2, ["h2", "structlog", "trio"]] == json.loads(ran.stdout)


@pytest.mark.parametrize("command", ["publish --data x", "tail"])
def test_a_command_that_waits_for_one_thing_carries_neither_an_event_loop_nor_http_2(
    command: str,
) -> None:
    ran = run(PROGRAM, *command.split(), "s", "--url", "http://no..name")

    assert [1, []] == json.loads(ran.stdout)


def test_a_client_of_an_event_loop_is_there_where_the_loop_was_imported_before() -> None:
    program = """
import trio
from broadcasterd.cli.imports import import_client
import_client("trio")
import httpcore._synchronization
print(httpcore._synchronization.trio is trio)
"""

    assert "True\n" == run(program).stdout


def test_a_traceback_is_the_interpreters_own_where_it_is_used() -> None:
    """The program has rich show exceptions; what is logged is plain, and tells no secret."""
    logged = run(EXCEPTION).stderr

    assert '  File "<string>", line 12, in <module>\n' in logged
    assert logged.endswith("\nValueError: 6 characters\n")
    assert "hidden" not in logged
    assert "\x1b" not in logged


def test_what_was_imported_before_is_still_there() -> None:
    program = """
import rich, sys
from broadcasterd.observe.imports import import_structlog
import_structlog()
import structlog.dev
print(sys.modules["rich"] is rich, structlog.dev.rich)
"""

    assert "True None\n" == run(program).stdout


def test_the_garbage_collector_looks_again_once_all_is_imported_or_nothing_could_be() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()

    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()
