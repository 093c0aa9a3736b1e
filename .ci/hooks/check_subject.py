"""Check the subject of a commit's message: one line, of at most 100 characters.

    python .ci/hooks/check_subject.py .git/COMMIT_EDITMSG

As Git sees it: without comments, and as far as the first blank line.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LONGEST = 100
"""Characters: what `git log --oneline` shows without a break on most screens."""


def complaint_about(message: str) -> str | None:
    """Return what is wrong with the subject of a message without comments, or ``None``."""
    subject, *more = message.partition("\n\n")[0].splitlines() or [""]
    if more:
        return f"The subject has {1 + len(more)} lines: leave the second line of a message blank."
    if len(subject) > LONGEST:
        return f"The subject has {len(subject)} characters, and {LONGEST} are allowed."
    return None


def main(file: str) -> int:
    """Check the message in a file, say what is wrong with it, and return the exit status."""
    stripped = subprocess.run(
        ["git", "stripspace", "--strip-comments"],  # noqa: S607 (the Git that calls this)
        input=Path(file).read_text(encoding="utf-8"),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    if complaint := complaint_about(stripped.stdout):
        print(complaint)
    return 1 if complaint else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
