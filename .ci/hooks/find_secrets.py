"""Find private keys and tokens in files that are about to be committed.

    python .ci/hooks/find_secrets.py FILE...

Names the place and the kind of each, never the secret: what this prints ends up in logs. The exit
status is 1 if there are any. A line that says "not a secret" is passed over, and says why.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

EXCUSE = "not a secret"

KINDS = {
    "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "a private key of age": r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    "a private JSON Web Key": r"\"(?:d|k)\"\s*:\s*\"[\w-]{32,}\"",
    "a JSON Web Token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{82})\b",
    "a token of GitLab": r"\bgl(?:pat|dt|rt|ptt|cbt)-[\w-]{20}",
    "a key of Google": r"\bAIza[\w-]{35}",
    "a token of npm": r"\bnpm_[A-Za-z0-9]{36}\b",
    "a token of PyPI": r"\bpypi-AgE[\w-]{50}",
    "a token of Slack": r"\bxox[abeprs]-(?:\d+-)+[A-Za-z0-9-]{8,}",
    "a web hook of Slack": r"hooks\.slack\.com/services/T\w+/B\w+/\w{16,}",
    "a key of Stripe": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "a key of an HTTP API": r"\bsk-(?:[a-z0-9]+-)*[A-Za-z0-9_]{32,}",
    "a secret with its name": (
        r"(?i:secret|passw(?:or)?d|token|api_?key)\w*[\"']?\s*[:=]\s*"
        r"[\"']?(?=[\w+/-]*\d)(?=[\w+/-]*[A-Z])(?=[\w+/-]*[a-z])[\w+/-]{32,}={0,2}(?![\w.(\[])"
    ),
}
"""What each looks like: by the formats that their issuers write down, in part to be found; the last
by the name that it is assigned to, and its mixture of digits and letters of both cases."""

_LOOKS_LIKE = [(kind, re.compile(pattern)) for kind, pattern in KINDS.items()]


def secrets_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line, counted from 1, and the kind of each secret in a text."""
    for number, line in enumerate(text.splitlines(), start=1):
        if EXCUSE not in line:
            yield from ((number, kind) for kind, found in _LOOKS_LIKE if found.search(line))


def main(files: list[str]) -> int:
    """Look through the files, say what is found, and return the exit status."""
    found = [
        f"{file}:{number}: {kind}"
        for file in files
        for number, kind in secrets_in(Path(file).read_text(encoding="utf-8", errors="replace"))
    ]
    if found:
        print(*found, f'If it is none, let the line say why, with "{EXCUSE}".', sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
