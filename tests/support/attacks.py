"""What strangers and neighbours do to a daemon that they mean to harm: one function for each kind.

Each takes seconds at the most, holds what it took until memory is short (or for two seconds), and
lets go of it. All are directed at a :class:`~tests.support.target.Target`, which is on loopback.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random

import trio
from hyperframe.frame import SettingsFrame

from tests.support.fuzz import all_of, client_hello, mutated
from tests.support.heads import odd_heads, over_http1, over_http2
from tests.support.http2_frames import FLOODS, PREFACE, head, rapid_resets
from tests.support.talk import target as events_of
from tests.support.target import MAX_SESSIONS, Target, request, token_of
from tests.support.tokens import SECRET, bearer, claims, sign

MIB = 1024 * 1024
SMALL_BUFFER = 4096
PAGE = {"Accept": "application/json"}

RESET_CONNECTIONS = 140
RESET_BYTES = 104 * 1024
"""On each of them: 14.6 MB in all."""


def hostile(dice: Random) -> tuple[str, dict[str, str]]:
    """Return a name of a session, and the token of a subject that may do as it likes with it."""
    subject = f"hostile-{dice.getrandbits(32):x}"
    return subject, token_of(subject)


# --- connections ---------------------------------------------------------------------------------


async def silent_connections(target: Target, dice: Random) -> None:
    """Connect, and say nothing."""
    async with target.held(1800):
        await target.pressed()


async def half_heads(target: Target, dice: Random) -> None:
    """Begin a head, and leave it at that."""
    filler = b"x" * dice.randint(13_000, 15_000)
    async with target.held(1200, b"GET /health HTTP/1.1\r\nHost: a\r\nX-Filler: " + filler):
        await target.pressed()


BESIDE_OTHERS = (503,)
"""What an attack may be answered as well, where another one has opened the breaker."""


async def half_handshakes(target: Target, dice: Random) -> None:
    """Begin a handshake of TLS, and leave it at that."""
    assert target.certificate is not None
    hello = client_hello(target.certificate.client_context())
    async with target.held(450, hello[: dice.randrange(len(hello))]):
        await target.pressed()


# --- answers -------------------------------------------------------------------------------------


async def unread_streams_of_http2(target: Target, dice: Random) -> None:
    """Ask for a large document on many streams of HTTP/2, and read none."""
    nothing = SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}).serialize()
    asked = b"".join(head(stream, path="/openapi.json") for stream in range(1, 200, 2))
    async with target.held(12, PREFACE + nothing + asked):
        await target.pressed()


async def unread_pages(target: Target, dice: Random) -> None:
    """Ask for a large page many times, and read none."""
    session, token = hostile(dice)
    body = json.dumps([{"data": "x" * 1000}] * 800).encode()
    kind = {"Content-Type": "application/json"}
    published = await target.storm([request("POST", events_of(session), token | kind, body)])
    assert set(published) <= {200, *BESIDE_OTHERS}
    asked = request("GET", events_of(session, "limit=1000"), token | PAGE)
    async with target.held(120, asked, receive_buffer=SMALL_BUFFER):
        await target.pressed()


async def long_polls(target: Target, dice: Random) -> None:
    """Wait for news that never come, many times."""
    session, token = hostile(dice)
    asked = request("GET", events_of(session, "wait=30"), token | PAGE)
    async with target.held(1000, asked):
        await target.pressed()


# --- publications --------------------------------------------------------------------------------


def chunked(dice: Random, kind: str, piece: bytes) -> bytes:
    """Return a publication whose body has come in part."""
    session, token = hostile(dice)
    fields = {"Content-Type": kind, "Transfer-Encoding": "chunked"} | token
    return request("POST", events_of(session), fields) + b"%x\r\n%b\r\n" % (len(piece), piece)


async def publications_held_back_by_a_rate(target: Target, dice: Random) -> None:
    """Stream more tiny events than a subject may publish: what came waits for its turn."""
    lines = b'{"data":1}\n' * 6000
    async with target.held(64, chunked(dice, "application/x-ndjson", lines)):
        await target.pressed()


async def half_lines(target: Target, dice: Random) -> None:
    """Relay a line that has no end; one wide character makes each of it take four bytes."""
    line = "data: 😀".encode() + b"x" * dice.randint(600_000, 900_000)
    async with target.held(32, chunked(dice, "text/event-stream", line)):
        await target.pressed()


async def heavy_bodies(target: Target, dice: Random) -> None:
    """Send what takes long to read: a type with many parameters, lines and more lines."""
    session, token = hostile(dice)
    path = events_of(session)
    many_lines = json.dumps({"data": "\n" * 149_000}).encode()
    await target.storm(
        [
            request("POST", path, token | {"Content-Type": "text/plain" + ";a=b" * 3000}, b"x"),
            request("POST", path, token | {"Content-Type": "text/plain"}, b"\n" * (MIB - 1)),
            request("POST", path, token | {"Content-Type": "text/event-stream"}, b"\n" * MIB),
            request("POST", path, token | {"Content-Type": "application/json"}, many_lines),
            request("GET", path, token | PAGE),
        ]
    )


# --- HTTP/2 --------------------------------------------------------------------------------------


async def floods_of_frames(target: Target, dice: Random) -> None:
    """Send frames that cost nothing to send, of each kind."""
    frames = dice.randint(1000, 3000)
    kinds = [b"".join(itertools.islice(flood(), frames)) for flood in FLOODS.values()]
    await all_of(partial(target.thrown, PREFACE + data) for data in kinds * 2)


async def resets_over_many_connections(target: Target, dice: Random) -> None:
    """Ask and give up, as fast as frames can be sent: 14.6 MB of it, all at once."""
    data = bytearray(PREFACE)
    resets = rapid_resets()
    while len(data) < RESET_BYTES:
        data += next(resets)
    async with trio.open_nursery() as nursery:
        for _ in range(RESET_CONNECTIONS):
            nursery.start_soon(target.thrown, bytes(data))


# --- shares --------------------------------------------------------------------------------------


async def squatted_sessions(target: Target, dice: Random) -> None:
    """Open more sessions than there may be, by listening for a moment."""
    name, token = hostile(dice)
    await all_of(
        partial(target.thrown, request("GET", events_of(f"{name}-{number}"), token))
        for number in range(2 * MAX_SESSIONS)
    )


async def tickets_that_nobody_uses(target: Target, dice: Random) -> None:
    """Ask for tickets without end."""
    session, token = hostile(dice)
    body = json.dumps({"session": session}).encode()
    asked = request("POST", "/v1/tickets", token | {"Content-Type": "application/json"}, body)
    assert set(await target.storm([asked] * 1100)) <= {201, 429, *BESIDE_OTHERS}


async def bad_tokens(target: Target, dice: Random) -> None:
    """Guess tokens and tickets, from the address that good ones come from too."""
    forged = bearer(sign(claims(admin=True, sub="innocent-0"), SECRET[::-1]))
    guesses = [bearer(f"{dice.getrandbits(64):x}") for _ in range(100)]
    asked = [request("GET", "/v1/sessions", guess) for guess in [forged, *guesses] * 2]
    asked += [
        request("GET", events_of("innocent-0", f"ticket={dice.getrandbits(64):x}"))
        for _ in range(100)
    ]
    statuses = await target.storm(asked)
    assert not set(statuses) & {201, 500}


async def bad_heads(target: Target, dice: Random) -> None:
    """Send heads that no client sends by mistake, and others that are nearly right."""
    some = dice.sample(odd_heads(), 60)
    thrown = [over_http1(head) for head in some] + [over_http2(head) for head in some[:20]]
    thrown += [mutated(data, dice.getrandbits(32)) for data in thrown]
    await all_of(partial(target.thrown, data) for data in thrown)


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind.

    Attributes:
        presses: whether it is one on memory.
        over_tls: whether it needs a daemon that speaks TLS; others need one that does not.

    """

    run: Callable[[Target, Random], Awaitable[None]]
    presses: bool = False
    over_tls: bool = False

    @property
    def name(self) -> str:
        """What it does."""
        return self.run.__name__.replace("_", " ")


ATTACKS = (
    Attack(silent_connections, presses=True),
    Attack(half_heads, presses=True),
    Attack(half_handshakes, presses=True, over_tls=True),
    Attack(unread_streams_of_http2, presses=True),
    Attack(unread_pages, presses=True),
    Attack(long_polls, presses=True),
    Attack(publications_held_back_by_a_rate, presses=True),
    Attack(half_lines, presses=True),
    Attack(heavy_bodies),
    Attack(floods_of_frames),
    Attack(resets_over_many_connections),
    Attack(squatted_sessions),
    Attack(tickets_that_nobody_uses),
    Attack(bad_tokens),
    Attack(bad_heads),
)
