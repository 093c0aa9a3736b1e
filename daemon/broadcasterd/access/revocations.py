"""Subjects that were revoked: the tokens that they had by then are denied for as long as they last.

A token says when it was issued (``iat``). One that does not say so counts as issued before.
"""

from __future__ import annotations

from collections.abc import Iterator

from broadcasterd.access.grants import Grant

MAX_REVOKED = 100_000
"""Subjects that are remembered: some 20 MB. Beyond it, the one that was revoked first is let in."""


class Revocations:
    """When each subject was revoked, in Unix time."""

    def __init__(self) -> None:
        self._revoked: dict[str, float] = {}  # the one that was revoked first comes first

    def __len__(self) -> int:
        return len(self._revoked)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """Yield the subjects, and when each was revoked, in Unix time."""
        return iter(tuple(self._revoked.items()))

    def revoke(self, subject: str, at: float) -> bool:
        """Deny what a subject was issued up to a time; return whether that was not so already."""
        known = self._revoked.get(subject)
        if known is not None and known >= at:
            return False
        self._revoked.pop(subject, None)
        self._revoked[subject] = at
        if len(self._revoked) > MAX_REVOKED:
            del self._revoked[next(iter(self._revoked))]
        return True

    def denies(self, grant: Grant) -> bool:
        """Whether a grant is of a token from before its subject was revoked."""
        if grant.subject is None:
            return False
        revoked_at = self._revoked.get(grant.subject)
        # iat may be whole seconds: one of the very second is of before, or could be.
        return revoked_at is not None and (grant.issued_at is None or grant.issued_at <= revoked_at)
