"""Run the whole suite again and again, and say of every failure how to have it again.

The first run is in the order of the files, all others in random order. During the second and the
third something else keeps one core busy, as on a machine with other things to do.

    python .ci/flake_check.py --runs 10 -- -n 4

What is behind ``--`` goes to pytest. The exit status is 1 if anything failed in any run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from secrets import randbelow

from typing_extensions import override

BUSY = {2, 3}
"""The runs during which one core is kept busy."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the suite; ``seed`` is that of its order, ``None`` for the order of the files."""

    number: int
    seed: int | None

    @property
    def busy(self) -> bool:
        """Whether something else keeps a core busy."""
        return self.number in BUSY

    def options(self) -> list[str]:
        """Return what pytest has to be told to have it again."""
        return [] if self.seed is None else ["-p", "randomly", f"--randomly-seed={self.seed}"]

    @override
    def __str__(self) -> str:
        order = "order of the files" if self.seed is None else f"seed {self.seed}"
        return f"run {self.number} ({order}{', one core busy' if self.busy else ''})"


def main() -> int:
    """Run it as often as asked; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("pytest", nargs="*", help="options for pytest, after --")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left running
    failures: list[str] = []
    for number in range(1, asked.runs + 1):
        run = Run(number, None if number == 1 else randbelow(2**32))
        began = time.monotonic()
        print(f"--- {run}", flush=True)
        with busy_core() if run.busy else nullcontext():
            failed = fails(run, asked.pytest)
        print(f"--- {run}: {len(failed)} failed in {time.monotonic() - began:.0f} s", flush=True)
        failures += [f"{run}: {test}" for test in failed]
    print("\n".join(failures) or f"nothing failed in {asked.runs} runs")
    return 1 if failures else 0


def fails(run: Run, options: list[str]) -> list[str]:
    """Run the suite, print what it prints, and return the lines that tell of a failure."""
    command = [sys.executable, "-m", "pytest", *run.options(), *options]
    failed: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pytest:  # noqa: S603
        try:
            for line in pytest.stdout or ():
                print(line, end="", flush=True)
                if line.startswith(("FAILED ", "ERROR ")):
                    failed.append(line.strip())
        except BaseException:
            pytest.terminate()
            raise
    status = pytest.returncode
    return failed or ([f"pytest ended with status {status}"] if status else [])


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy."""
    # It looks for its end once a second: nobody else would end it, if this program were killed.
    parent = f"import os, time\nuntil = {os.getpid()}\n"
    loop = "while os.getppid() == until:\n end = time.time() + 1\n while time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", parent + loop]) as process:  # noqa: S603
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
