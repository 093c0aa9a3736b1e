"""An upload: a request that publishes, counted while it lasts, with the memory of its body."""

from __future__ import annotations

from typing import Self

from typing_extensions import override

from broadcasterd.access.quotas import Quotas
from broadcasterd.errors import UsedUp
from broadcasterd.memory.account import Account, Holding


class Upload(Holding):
    """A request that publishes, and the memory of its body: counted for its subject too.

    A context manager, as any holding of bytes: what it counted is returned on the way out.

    Args:
        account: counts the bytes of all of them.
        quotas: count what the subject has.
        subject: the one that publishes.

    """

    __slots__ = ("_quotas", "_subject")

    def __init__(self, account: Account, quotas: Quotas, subject: str | None) -> None:
        super().__init__(account)
        self._quotas = quotas
        self._subject = subject

    @override
    def __enter__(self) -> Self:
        """Count the request.

        Raises:
            UsedUp: its subject has as many as it may.

        """
        quotas, subject = self._quotas, self._subject
        if subject is None:
            return self
        if quotas.publishing_of_subject[subject] >= quotas.limits.max_publishing_per_subject:
            raise UsedUp("max_publishing_per_subject")
        quotas.publishing_of_subject.add(subject)
        return self

    @override
    def __exit__(self, *exc_info: object) -> None:
        self.hold(0)
        self._quotas.publishing_of_subject.remove(self._subject)

    @override
    def hold(self, size: int) -> None:
        """Hold ``size`` bytes from now on.

        Raises:
            UsedUp: they are more than before, and with them its subject has more than it may.

        """
        pending, subject, grown = self._quotas.pending_of_subject, self._subject, size - self.bytes
        super().hold(size)
        if subject is None:
            return
        if grown > 0:
            if pending.add(subject, grown) > self._quotas.limits.max_pending_bytes_per_subject:
                raise UsedUp("max_pending_bytes_per_subject")
        elif grown:
            pending.remove(subject, -grown)
