"""A terminal as a person has it: a command that runs in it, keys, a size, and what is seen."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyte

SOON_S = 60.0
PIECE_BYTES = 65536

ALTERNATE_ON, ALTERNATE_OFF = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """A pseudo-terminal with a command in it, of which it is the controlling terminal.

    Attributes:
        process: the command.
        written: all that it wrote.
        settings_at_start: the terminal's settings, before it ran.

    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], columns: int, lines: int
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, self._theirs = os.openpty()
        self.written = b""
        self.settings_at_start = self.settings()
        self._set_size(columns, lines)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environment},
        )

    @property
    def lines(self) -> list[str]:
        """What is to be seen, without the blanks at the ends of lines."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines)

    @property
    def words(self) -> str:
        """The same, wherever lines end."""
        return " ".join(self.text.split())

    def settings(self) -> list[object]:
        """Return the terminal's settings (termios(3))."""
        return list(termios.tcgetattr(self._theirs))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change its size; the kernel tells the command (SIGWINCH)."""
        self._screen.resize(lines, columns)
        self._screen.reset()
        self._set_size(columns, lines)

    def until(self, condition: Callable[[], object]) -> None:
        """Look until a condition holds."""
        deadline = time.monotonic() + SOON_S
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not within {SOON_S} s; on the terminal is\n{self.text}"
            self._look(min(left, 0.1))

    def until_seen(self, text: str) -> None:
        """Look until a text is to be seen, wherever lines end."""
        self.until(lambda: text in self.words)

    def until_over(self) -> int:
        """Look until the command has ended; return its exit status."""
        self.until(lambda: self.process.poll() is not None)
        self.look()
        return self.process.returncode

    def look(self) -> None:
        """See what is there already."""
        while self._look(0):
            pass

    def close(self) -> None:
        """Hang up, and end the command."""
        os.close(self._ours)
        os.close(self._theirs)
        self.process.kill()
        self.process.wait()

    def _look(self, within: float) -> bool:
        if not select.select([self._ours], [], [], within)[0]:
            return False
        piece = os.read(self._ours, PIECE_BYTES)
        self.written += piece
        self._stream.feed(piece)
        return True

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextmanager
def terminal(
    *arguments: str, columns: int = 80, lines: int = 24, **environment: str
) -> Iterator[Terminal]:
    """Run ``broadcasterd`` with these arguments in a terminal while inside."""
    command = [sys.executable, "-m", "broadcasterd", *arguments]
    opened = Terminal(command, environment, columns, lines)
    try:
        yield opened
    finally:
        opened.close()
