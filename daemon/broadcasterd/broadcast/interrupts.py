"""Waits that end early: nobody waits for a request that waits for its client, or for room.

Each wait is a cancel scope, and names the cause that ends it: a drain, short memory, an expired
grant. A cause is reported here once, and cancels all scopes that name it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

import trio

from broadcasterd.access.grants import Grant
from broadcasterd.broadcast.clock import Clock


class Interrupts:
    """Cancel scopes, by the cause that ends them.

    Args:
        clock: knows when a grant expires.

    Attributes:
        draining: whether the daemon drains: a wait until then does not even begin.

    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.draining = False
        self._until_drain: set[trio.CancelScope] = set()
        self._until_short: set[trio.CancelScope] = set()
        self._until_expired: dict[trio.CancelScope, str | None] = {}  # and the grant's subject

    # Called by requests that wait

    @contextmanager
    def until_drain(self) -> Iterator[trio.CancelScope]:
        """Cancel the wait inside when the daemon drains: for waits that only a client can end."""
        with trio.CancelScope() as scope, _listed(scope, self._until_drain):
            if self.draining:
                scope.cancel()
            yield scope

    @contextmanager
    def until_short_of_memory(self) -> Iterator[trio.CancelScope]:
        """Cancel the wait inside when the breaker opens: for waits that hold memory meanwhile."""
        with trio.CancelScope() as scope, _listed(scope, self._until_short):
            yield scope

    @contextmanager
    def until_expired(self, grant: Grant) -> Iterator[trio.CancelScope]:
        """Cancel the wait inside when a grant expires, or its subject is revoked."""
        with trio.CancelScope(deadline=self._clock.moment(grant.expires_at)) as scope:
            self._until_expired[scope] = grant.subject
            try:
                yield scope
            finally:
                del self._until_expired[scope]

    # Called when a cause has come

    def drain(self) -> None:
        """End the waits until the daemon drains."""
        self.draining = True
        _cancel(self._until_drain)

    def short_of_memory(self) -> None:
        """End the waits until the breaker opens."""
        _cancel(self._until_short)

    def wall_was_set(self, seconds: float) -> None:
        """Let waits end when their grants expire by the clock that was set by so much."""
        for scope in self._until_expired:
            scope.deadline -= seconds

    def revoke(self, subjects: Container[str]) -> None:
        """End the waits under the grants of subjects."""
        _cancel({scope for scope, whose in self._until_expired.items() if whose in subjects})


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
