"""Waits that end early: a request that waits for its client, or for room, is not waited for.

Each wait names what ends it, and is a cancel scope. What happens is said here once, and cancels the
scopes of everyone concerned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from broadcasterd.access.grants import Grant
from broadcasterd.broadcast.clock import Clock


class Interrupts:
    """Cancel scopes, by what ends them.

    Args:
        clock: knows when a grant expires.

    Attributes:
        draining: whether the daemon drains: what waits until then does not even begin to.

    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.draining = False
        self._until_drain: set[trio.CancelScope] = set()
        self._until_short: set[trio.CancelScope] = set()
        self._until_expired: dict[trio.CancelScope, str | None] = {}  # and whose grant it is

    # For those who wait

    @contextmanager
    def until_drain(self) -> Iterator[trio.CancelScope]:
        """Cancel what is inside when the daemon drains: waits that only a client can end."""
        with trio.CancelScope() as scope, _listed(scope, self._until_drain):
            if self.draining:
                scope.cancel()
            yield scope

    @contextmanager
    def until_short_of_memory(self) -> Iterator[trio.CancelScope]:
        """Cancel what is inside when the breaker opens: waits that hold memory meanwhile."""
        with trio.CancelScope() as scope, _listed(scope, self._until_short):
            yield scope

    @contextmanager
    def until_expired(self, grant: Grant) -> Iterator[trio.CancelScope]:
        """Cancel what is inside when a grant expires, or its subject is revoked."""
        with trio.CancelScope(deadline=self._clock.moment(grant.expires_at)) as scope:
            self._until_expired[scope] = grant.subject
            try:
                yield scope
            finally:
                del self._until_expired[scope]

    # For those who know that it has happened

    def drain(self) -> None:
        """End what waits until the daemon drains."""
        self.draining = True
        _cancel(self._until_drain)

    def short_of_memory(self) -> None:
        """End what waits until the breaker opens."""
        _cancel(self._until_short)

    def revoke(self, subject: str) -> None:
        """End what waits by the grants of a subject."""
        _cancel({scope for scope, whose in self._until_expired.items() if whose == subject})


@contextmanager
def _listed(scope: trio.CancelScope, scopes: set[trio.CancelScope]) -> Iterator[None]:
    scopes.add(scope)
    try:
        yield
    finally:
        scopes.discard(scope)


def _cancel(scopes: set[trio.CancelScope]) -> None:
    for scope in tuple(scopes):
        scope.cancel()
