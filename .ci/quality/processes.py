"""Commands of this machine: how they are run, and how they end when this program has to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CLEAN_UP_S = 20.0
"""How long an interrupted command may take: pytest ends what its tests started."""

TIMEOUT = ("timeout", "--signal=INT", f"--kill-after={CLEAN_UP_S:g}")
TIMED_OUT = 124
"""The exit status of timeout(1) where it ended the command."""

FOREIGN = ("GIT_", "MAKE", "MFLAGS", "PYTEST_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
"""Variables that tell of a `make`, a Git or a pytest around us, and not of what is run. Where no
bytecode is kept, each process of a test run would compile the daemon anew."""


class QualityError(Exception):
    """Something went wrong; the text says what, and what helps."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended by itself; ``output`` is all that it printed."""

    status: int
    output: str
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line that says anything."""
        return next((line for line in reversed(self.output.splitlines()) if line.strip()), "")


def run(
    command: Sequence[str | Path],
    *,
    directory: Path,
    log: Path | None = None,
    within: float | None = None,
) -> Done:
    """Run a command, which gets no input.

    Args:
        command: a program and its arguments.
        directory: where it is run.
        log: gets what it prints, while it runs.
        within: how many seconds it may take.

    Raises:
        QualityError: it took longer, or cannot be run.

    """
    if within:
        command = [*TIMEOUT, f"{within:g}", *command]
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
    log = log or Path(os.devnull)
    output: list[str] = []
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as copy:
        try:
            process = subprocess.Popen(  # noqa: S603 (what is run is written down in this package)
                command,
                cwd=directory,
                env=inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                process_group=0,
            )
        except OSError as error:
            raise QualityError(f"{command[0]}: {error.strerror}") from error
        with _ended_with_all(process):
            for line in process.stdout or ():
                copy.write(line)
                copy.flush()
                output.append(line)
            process.wait()
    if within and process.returncode == TIMED_OUT:
        raise QualityError(f"it was not done after {within:g} s")
    return Done(process.returncode, "".join(output), time.monotonic() - began)


def git(*arguments: str | Path, directory: Path) -> str:
    """Run Git, which takes no lock where it can do without; return what it prints, stripped.

    Raises:
        QualityError: it failed.

    """
    # No hook of the user's: a new worktree would run one.
    quiet = ["git", "--no-optional-locks", "-c", "core.hooksPath=/dev/null"]
    done = run([*quiet, *arguments], directory=directory)
    if done.status:
        raise QualityError(f"git {arguments[0]}: {done.output.strip()}")
    return done.output.strip()


def raise_interruptions() -> None:
    """Have whatever is to end this program raise KeyboardInterrupt, so that it cleans up."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for each in INTERRUPTIONS:
        signal.signal(each, interrupt)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore whatever is to end this program, for as long as it cleans up."""
    handlers = {each: signal.signal(each, signal.SIG_IGN) for each in INTERRUPTIONS}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


@contextmanager
def _ended_with_all(process: subprocess.Popen[str]) -> Iterator[None]:
    """Wait for a process; where something is raised, end it and what it started."""
    with process:
        try:
            yield
        except BaseException:
            with uninterrupted(), suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=CLEAN_UP_S)
                os.killpg(process.pid, signal.SIGKILL)
            raise
