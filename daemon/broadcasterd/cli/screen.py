"""A terminal that is ours for a while: the whole of it, and each key as it is pressed.

However that ends, the terminal is then what it was before.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import trio
from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live

Attributes = list[int | list[bytes | int]]
"""As termios has them."""

MIN_COLUMNS, MIN_LINES = 20, 4
"""Of a terminal that says it is smaller, or does not know (0), this much is drawn."""


class Screen:
    """The terminal of standard output, whose keys are those of standard input.

    Args:
        console: writes to standard output.
        draw: returns what is to be seen.

    """

    def __init__(self, console: Console, draw: Callable[[], RenderableType]) -> None:
        self._console = console
        self._live = Live(
            get_renderable=draw,
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: Attributes | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the terminal while inside."""
        try:
            self._take()
            yield
        finally:
            self._leave()

    def suspend(self) -> None:
        """Stop this process, as ctrl-Z does; return when it goes on."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def _take(self) -> None:
        self._fit()
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSANOW)
        self._live.start()

    def _leave(self) -> None:
        with suppress(OSError):  # the terminal may be gone
            self._live.stop()
        if self._keys is not None and self._before is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSANOW, self._before)

    def redraw(self) -> None:
        """Draw what is to be seen now, in the size that the terminal has now."""
        self._fit()
        self._live.refresh()

    async def keys(self) -> bytes:
        """Wait for keys, and return them; none when the terminal is gone."""
        if self._keys is None:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._keys)
        try:
            return os.read(self._keys, 1024)
        except OSError:
            return b""

    def _fit(self) -> None:
        # rich asks once, and believes $COLUMNS, which does not follow the terminal.
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        size = ConsoleDimensions(max(columns, MIN_COLUMNS), max(lines, MIN_LINES))
        self._console.size = size
