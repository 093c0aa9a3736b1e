"""Restarts that nobody notices: a process takes up sessions and streams, and leaves them again.

Under systemd, sockets and logs wait in its descriptor store. Without one, the logs wait in the
service's runtime directory, and clients come back to them. Otherwise a restart is a new beginning.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

import structlog

from broadcasterd.access.rotation import Secrets
from broadcasterd.broadcast.hub import Hub
from broadcasterd.config import Config
from broadcasterd.handover.descriptor_store import DescriptorStore, Stored
from broadcasterd.handover.files import HandoverFiles
from broadcasterd.handover.format import SEGMENT_BYTES, HandoverError
from broadcasterd.handover.kept_configuration import pack
from broadcasterd.handover.transfer import Alerts, Connections, hand_over, restore
from broadcasterd.host.systemd import HandedOver, Notifier, runtime_directory

log = structlog.stdlib.get_logger(__name__)

SPARE_DESCRIPTORS = 5
"""Room in the store for the parcel of sockets, the segment that is not full, the configuration, and
some air."""


class Restart:
    """Takes up a handover at the start, and leaves one at the end.

    Args:
        handed: the descriptors that this process was started with.
        notifier: tells systemd.
        environ: names the descriptor store's size (``FDSTORE``, systemd.exec(5)) and the runtime
            directory.

    Attributes:
        others: the descriptors that are no part of a handover: sockets to listen on.
        runtime_directory: keeps files from one start to the next, where there is one.
        configuration: the packed one that the service last ran with, where the store has it.

    """

    def __init__(
        self, handed: Sequence[HandedOver], notifier: Notifier, environ: Mapping[str, str]
    ) -> None:
        room = int(environ.get("FDSTORE") or 0) if "NOTIFY_SOCKET" in environ else 0
        self._keeper: DescriptorStore | HandoverFiles | None = None
        store = DescriptorStore(notifier, room=room)
        left = Stored(handed, store)
        self._left: Stored | HandoverFiles = left
        self.others = left.others
        self.configuration = left.configuration
        self.runtime_directory = runtime_directory(environ)
        if room:
            self._keeper = store
        elif self.runtime_directory is not None:
            self._keeper = self._left = HandoverFiles(self.runtime_directory)

    async def keep_configuration(self, config: Config, secrets: Secrets) -> None:
        """Have the store keep a configuration and its files, for a start that finds bad ones."""
        if not isinstance(self._keeper, DescriptorStore):
            return
        try:
            packed = pack(config, secrets)
            if packed != self.configuration:
                await self._keeper.keep_configuration(packed)
                self.configuration = packed
        except OSError as error:
            why = str(error) or type(error).__name__
            log.warning("the configuration cannot be kept for the next start", why=why)

    def keeps_streams(self, hub: Hub) -> bool:
        """Whether streams can go on in the next process: only if the store has room for logs."""
        if not isinstance(self._keeper, DescriptorStore):
            return False
        return hub.logs.bytes // SEGMENT_BYTES + SPARE_DESCRIPTORS <= self._keeper.room

    async def restore(self, hub: Hub, connections: Connections) -> Alerts:
        """Go on with the handover that was left, if any; ``connections`` takes its sockets in.

        Return the alerts that fired then.
        """
        if not self._left.segments:
            for sock in await self._left.take_sockets():
                sock.close()  # nobody knows its session and its cursor
            return ()
        try:
            moved = await restore(hub, self._left, connections)
        except (HandoverError, OSError) as error:
            log.error(  # noqa: TRY400 (what it says is all there is to know)
                "handover unreadable",
                why=str(error),
                then="every session begins anew; clients come back and are told of the gap",
            )
            return ()
        log.info(
            "handover taken up",
            sessions=moved.sessions,
            events=moved.events,
            streams=moved.streams,
            connections=moved.connections,
            lost_streams=moved.lost_streams,
            away_s=round(moved.seconds, 3),
        )
        return moved.alerts

    async def hand_over(
        self, hub: Hub, idle: Sequence[socket.socket] = (), alerts: Alerts = ()
    ) -> None:
        """Leave everything to the next process, if somebody keeps it.

        Args:
            hub: has the sessions and streams.
            idle: connections on which no request is under way.
            alerts: those that fire.

        """
        if self._keeper is None:
            return
        try:
            moved = await hand_over(hub, self._keeper, idle, alerts)
            await self._keeper.settle()
        except OSError as error:
            why = str(error) or type(error).__name__
            log.error("handover failed", why=why)  # noqa: TRY400 (its text is all there is to know)
            return
        log.info(
            "handed over",
            sessions=moved.sessions,
            events=moved.events,
            streams=moved.streams,
            connections=moved.connections,
        )
