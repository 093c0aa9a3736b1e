"""The allocator: a process that starts itself again once, with all that it was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = """
import json, os, sys
before = os.getpid()
from broadcasterd.host.allocator import use_allocator_that_gives_back
use_allocator_that_gives_back()
print(json.dumps([os.getpid(), os.environ["PYTHONMALLOC"], sys.argv, sys.flags.dev_mode]))
"""


def run(**environment: str) -> list[object]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", PROGRAM, "serve", "--config", "a b"],
        stdout=subprocess.PIPE,
        env={**inherited, **environment},
    ) as process:
        assert process.stdout is not None
        pid, *rest = json.loads(process.stdout.read())

    assert process.returncode == 0
    assert pid == process.pid
    return list(rest)


def test_it_starts_again_as_the_same_process_with_the_same_arguments() -> None:
    assert run() == ["malloc", ["-c", "serve", "--config", "a b"], True]


def test_what_the_operator_has_set_stays() -> None:
    assert run(PYTHONMALLOC="pymalloc") == ["pymalloc", ["-c", "serve", "--config", "a b"], True]
