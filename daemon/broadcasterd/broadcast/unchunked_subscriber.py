"""A stream of HTTP/1.0, which knows no chunks: the end of its body is the close.

nginx asks so, unless it is told otherwise. What is live is written as it was encoded, once for all
streams of this kind; only what is replayed has its chunks taken off for each.
"""

from __future__ import annotations

from typing_extensions import override

from broadcasterd.broadcast.batch import Batch
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.broadcast.subscriber import MAX_WRITE_BYTES
from broadcasterd.core.run import UnchunkedRun
from broadcasterd.core.wire import HEARTBEAT


class UnchunkedSubscriber(SocketSubscriber):
    """A stream of HTTP/1.0 on a socket of its own."""

    __slots__ = ()

    _heartbeat = HEARTBEAT
    _end_of_body = b""

    @override
    def deliver(self, batch: Batch) -> None:
        super().deliver(batch.unchunked)

    @override
    def _is_live(self, batch: Batch) -> None:
        """Nothing: the marks are those of the chunks."""

    @override
    def _framed(self, data: bytes) -> bytes:
        return data

    @override
    def _next_run(self) -> UnchunkedRun | None:
        run = self.feed.log.run_after(self.cursor, max_bytes=MAX_WRITE_BYTES)
        return None if run is None else UnchunkedRun(run)
