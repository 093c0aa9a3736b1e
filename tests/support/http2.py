"""An HTTP/2 client whose flow control is in the hands of the test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import h2.config
import h2.connection
import h2.events
import h2.settings
import trio

from tests.support.following import Following, Pieces
from tests.support.inprocess import SOON


class Http2:
    """One connection with many streams. Whoever opened the transport closes it.

    Args:
        transport: connected, and HTTP/2 was agreed on.
        authority: the host that requests name.
        window: bytes of each response that may come before more is asked for.

    Attributes:
        stalled: streams that read nothing more: their window is never opened again.
        status: of the responses, by stream.
        headers: of the responses, by stream.
        errors: error codes of the streams that the server reset.
        ended: streams whose response is complete.
        terminated: whether the server said that it goes away.

    """

    def __init__(
        self, transport: trio.abc.Stream, *, authority: str = "127.0.0.1", window: int = 65_535
    ) -> None:
        self.transport = transport
        self.stalled: set[int] = set()
        self.status: dict[int, int] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.errors: dict[int, int] = {}
        self.ended: set[int] = set()
        self.terminated = False
        self._authority = authority
        self._bodies: dict[int, bytearray] = defaultdict(bytearray)
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
            },
        )

    async def start(self) -> None:
        """Say hello."""
        self._h2.initiate_connection()
        await self._flush()

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes = b"",
        end: bool = True,
    ) -> int:
        """Send a request, all of it unless ``end`` is false; return its stream."""
        stream = self._h2.get_next_available_stream_id()
        fields = {
            ":method": method,
            ":scheme": "https",
            ":authority": self._authority,
            ":path": path,
            **(headers or {}),
        }
        self._h2.send_headers(stream, list(fields.items()), end_stream=end and not body)
        await self._flush()
        if body:
            await self.go_on(stream, body, end=end)
        return stream

    async def go_on(self, stream: int, body: bytes, *, end: bool = False) -> None:
        """Send a piece of a request's body, as the server's flow control allows."""
        while body:
            await self.until(lambda: self._h2.local_flow_control_window(stream))
            room = self._h2.local_flow_control_window(stream)
            piece = body[: min(room, self._h2.max_outbound_frame_size)]
            body = body[len(piece) :]
            self._h2.send_data(stream, piece, end_stream=end and not body)
            await self._flush()

    async def prioritize(self, stream: int, *, depends_on: int = 0) -> None:
        """Send a PRIORITY frame."""
        self._h2.prioritize(stream, depends_on=depends_on)
        await self._flush()

    async def reset(self, stream: int) -> None:
        """Give a stream up."""
        self._h2.reset_stream(stream)
        await self._flush()

    async def until(self, condition: Callable[[], object], *, within: float = SOON) -> None:
        """Receive from the server until ``condition`` holds."""
        with trio.fail_after(within):
            while not condition():
                await self._take()

    async def answer(self, stream: int) -> tuple[int, bytes]:
        """Wait for a whole response; return its status and its body."""
        await self.until(lambda: stream in self.ended)
        return self.status[stream], bytes(self._bodies.pop(stream, b""))

    def body(self, stream: int) -> Pieces:
        """Return the body of a response as it comes, up to its clean end."""

        async def take() -> bytes | None:
            while not (piece := self._bodies.pop(stream, None)):
                if stream in self.ended:
                    return None
                assert stream not in self.errors, f"reset: {self.errors[stream]}"
                await self._take()
            return bytes(piece)

        return Pieces(take)

    async def follow(self, path: str, headers: Mapping[str, str] | None = None) -> Following:
        """Subscribe, and wait for the opening of the stream."""
        following = Following(self.body(await self.ask("GET", path, headers)))
        await following.opening()
        return following

    async def _take(self) -> None:
        data = await self.transport.receive_some()
        assert data, "the server closed the connection"
        for event in self._h2.receive_data(bytes(data)):
            self._note(event)
        await self._flush()

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                headers = {str(name): str(value) for name, value in event.headers or ()}
                self.status[event.stream_id] = int(headers.pop(":status"))
                self.headers[event.stream_id] = headers
            case h2.events.DataReceived():
                self._bodies[event.stream_id] += event.data or b""
                size = event.flow_controlled_length or 0
                if event.stream_id in self.stalled and size:
                    self._h2.increment_flow_control_window(size)  # of the connection only
                elif size:
                    self._h2.acknowledge_received_data(size, event.stream_id)
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id)
            case h2.events.StreamReset():
                self.errors[event.stream_id] = int(event.error_code or 0)
            case h2.events.ConnectionTerminated():
                self.terminated = True

    async def _flush(self) -> None:
        await self.transport.send_all(self._h2.data_to_send())
