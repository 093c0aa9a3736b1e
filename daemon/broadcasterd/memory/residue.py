"""Memory that no count explains: what is resident beside the bytes that the daemon counts itself.

It is what is free and was not given back, what lies between, what libraries keep; in a full cgroup,
also what other processes hold. No policy frees it, and no history is worth anything against it. So
it is given back to the kernel again and again; what stays all the same is excused: it is told, and
the breaker goes on as if it were not there.
"""

from __future__ import annotations

from broadcasterd.memory.breaker import MIB

MUCH_BYTES = 2 * MIB
"""Less is what the program itself comes to, by and by."""

WASTE_BYTES = 16 * MIB
"""So much of no use is worth giving back also where nobody is short of memory."""

TRIES = 3
"""Releases that brought nothing, until memory is excused: with their pauses some 15 s."""

STEADY_BYTES = MIB
"""What moves by itself."""


class Residue:
    """The bytes beside those that are counted.

    Attributes:
        bytes: those of the last look.
        excused: those that are known to stay, and held against nobody. What comes on top has to
            be tried for, too; what still grows is in use, and is never excused.

    """

    def __init__(self) -> None:
        self.bytes = 0
        self.excused = 0
        self._first: int | None = None  # at the first look: the program itself
        self._least = 0  # that there has ever been
        self._tries = 0  # in a row that brought nothing
        self._at_last_try = 0  # that was unexplained

    @property
    def unexplained(self) -> int:
        """Bytes beyond those of the program itself."""
        return 0 if self._first is None else self.bytes - self._least

    @property
    def held_against_us(self) -> int:
        """Bytes that are not excused."""
        return self.bytes - self.excused

    def observe(self, used: int, counted: int) -> None:
        """Take the figures of this moment; what was freed and not given back is not in ``used``.

        A count may be ahead of what is resident. Who thought the program smaller for it than it
        was at first would excuse more than there is.
        """
        self.bytes = used - counted
        if self._first is None:
            self._first = self._least = self.bytes
        self._least = max(min(self._least, self.bytes), self._first - MUCH_BYTES)
        self.excused = max(0, min(self.excused, self.unexplained))

    def exceeds(self, recover: int, *, besides: int = 0) -> bool:
        """Whether memory would not be back if all that is counted were freed.

        ``besides`` are bytes that are counted, and in use.
        """
        is_much = self.unexplained + besides >= MUCH_BYTES
        return is_much and self.held_against_us + besides >= recover

    def was_released(self, recover: int, *, is_spent: bool) -> bool:
        """Look what giving back has brought; return whether more is excused from now on.

        ``is_spent`` says that memory is not back, and that all has been freed that may be.
        """
        grows = self.unexplained > self._at_last_try + STEADY_BYTES
        self._at_last_try = self.unexplained
        in_the_way = self.exceeds(recover) or (is_spent and self.unexplained >= MUCH_BYTES)
        if grows or not in_the_way:
            self._tries = 0
            return False
        self._tries += 1
        if self._tries < TRIES:
            return False
        self._tries = 0
        self.excused = self.unexplained
        return True
