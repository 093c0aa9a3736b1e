"""Those who publish in the soak: every kind of body, whole and in pieces, and second tries.

The text of each event begins with a line of JSON: who published it, and which of that publisher's
events for that session it is. A subscriber who sees 6 after 4 has lost one. Not counted are events
with a ttl, and second tries: those may be missing. A publisher who was refused goes on under
another name, because nobody can tell it what became of the rest.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import trio

from tests.performance.soak_ledger import Id
from tests.performance.soak_world import Doubt, Violation, World, check_refusal, some_session
from tests.support.flood import ANSWER_S, Client, client_of, read_answer
from tests.support.http1 import Answer
from tests.support.talk import target

PAUSE_S = 0.06
PIECE_PAUSE_S = 0.2
MAX_EVENTS = 12
FITTING_EVENTS = 15
"""So many of these events, at their largest, are within the bounds of a history."""

PADDINGS = ("x", "é", "😀", "line\n", ": not a comment\n", "data: \\n")


@dataclass(frozen=True, slots=True)
class Posting:
    """An event, as it is to arrive."""

    kind: str
    text: str
    ttl: float | None = None
    key: str | None = None

    def as_json(self) -> str:
        """Return it as a JSON publisher sends it."""
        members = {"event": self.kind, "data": self.text, "ttl": self.ttl}
        members["idempotency_key"] = self.key
        return json.dumps({name: value for name, value in members.items() if value is not None})

    def as_sse(self) -> str:
        """Return it as another event stream has it."""
        lines = "".join(f"data: {line}\n" for line in self.text.split("\n"))
        return f"id: foreign\nevent: {self.kind}\n{lines}\n"


class Publisher:
    """Publishes everything that can be published, to all sessions, one request at a time."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._dice = world.random_for(name)
        self._name = name
        self._alias = 0
        self._keys = 0
        self._counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Publish until cancelled."""
        ways = (self._one, self._array, self._array, self._text, self._ndjson, self._relay)
        async with client_of(self._world.daemon) as client:
            while True:
                async with self._world.gate.acting():
                    await self._dice.choice(ways)(client, some_session(self._dice))
                await self._world.gate.nap(self._dice.expovariate(1 / PAUSE_S))

    # The ways to publish

    async def _one(self, client: Client, session: str) -> None:
        posting = self._posting(session, ttl=self._some_ttl())
        await self._post(client, session, [posting], posting.as_json().encode())

    async def _array(self, client: Client, session: str) -> None:
        ttl = self._some_ttl()
        keyed = ttl is None and self._dice.random() < 0.3
        count = self._dice.randint(1, MAX_EVENTS)
        postings = [self._posting(session, ttl=ttl, keyed=keyed) for _ in range(count)]
        sent_at, reply = await self._post(client, session, postings, _array(postings))
        if keyed and reply is not None:
            await self._try_again(client, session, postings, reply, sent_at)

    async def _text(self, client: Client, session: str) -> None:
        posting = self._posting(session)
        query = f"event={posting.kind}"
        await self._post(
            client, session, [posting], posting.text.encode(), query=query, kind="text/plain"
        )

    async def _ndjson(self, client: Client, session: str) -> None:
        del client
        postings = list(self._postings(session))
        body = "".join(posting.as_json() + "\n" for posting in postings)
        await self._stream(session, postings, body.encode(), "application/x-ndjson")

    async def _relay(self, client: Client, session: str) -> None:
        del client
        postings = list(self._postings(session))
        body = "".join(posting.as_sse() for posting in postings)
        await self._stream(session, postings, body.encode(), "text/event-stream")

    # What they share

    def _some_ttl(self) -> float | None:
        return self._dice.uniform(0.2, 3) if self._dice.random() < 0.15 else None

    def _postings(self, session: str) -> Iterator[Posting]:
        for _ in range(self._dice.randint(1, MAX_EVENTS)):
            yield self._posting(session)

    def _posting(self, session: str, *, ttl: float | None = None, keyed: bool = False) -> Posting:
        head: dict[str, object] = {"by": f"{self._name}.{self._alias}"}
        if ttl is None:
            self._counts[session] += 1
            head["n"] = self._counts[session]
        padding = self._dice.choice(PADDINGS) * self._dice.randrange(100)
        if self._dice.random() < 0.15:
            padding *= 10
        self._keys += keyed
        key = f"{self._name} {self._keys}" if keyed else None
        kind = self._dice.choice(("message", "tick", "tock"))
        return Posting(kind, f"{json.dumps(head)}\n{padding}", ttl, key)

    async def _post(
        self,
        client: Client,
        session: str,
        postings: list[Posting],
        body: bytes,
        *,
        query: str = "",
        kind: str = "application/json",
    ) -> tuple[float, dict[str, object] | None]:
        """Publish a whole body; return when it was sent, and the answer if it was accepted."""
        sent_at = trio.current_time()
        reply = await client.ask("POST", target(session, query), body, kind)
        if not self._was_accepted(reply):
            return sent_at, None
        answer = reply.json()
        if (answer["accepted"], answer.get("duplicates", 0)) != (len(postings), 0):
            raise Violation(f"{len(postings)} new events were answered {answer}")
        first, last = Id.parse(answer["first_id"]), Id.parse(answer["last_id"])
        if last != Id(first.incarnation, first.seq + len(postings) - 1):
            raise Violation(f"{len(postings)} events of one body were answered {answer}")
        for seq, posting in enumerate(postings, start=first.seq):
            self._enter(Id(first.incarnation, seq), posting, sent_at)
        return sent_at, answer

    async def _try_again(
        self,
        client: Client,
        session: str,
        postings: list[Posting],
        first: dict[str, object],
        sent_at: float,
    ) -> None:
        """Publish the same keys again: those whose events are retained are no news to anybody."""
        text = json.dumps({"by": self._name})
        again = [Posting("again", text, None, posting.key) for posting in postings]
        reply = await client.ask("POST", target(session), _array(again))
        if not self._was_accepted(reply):
            return
        answer = reply.json()
        self._world.figures.duplicates += answer.get("duplicates", 0)
        if answer["accepted"] + answer.get("duplicates", 0) != len(again):
            raise Violation(f"{len(again)} events were answered {answer}")
        if not answer["accepted"]:
            if (first["first_id"], first["last_id"]) != (answer["first_id"], answer["last_id"]):
                raise Violation(f"a second try was answered {answer}, the first {first}")
            return
        known, new = Id.parse(str(first["first_id"])), Id.parse(answer["last_id"])
        age = trio.current_time() - sent_at
        if (
            known.incarnation == new.incarnation
            and new.seq - known.seq < FITTING_EVENTS
            and age < self._world.sections["sessions"]["event_ttl"]
        ):
            what = f"{again[0].key!r} was accepted again as {new}, {age:.2f} s after {known}"
            self._world.doubts.append(Doubt(what, began=time.time() - age, ended=time.time()))

    async def _stream(self, session: str, postings: list[Posting], body: bytes, kind: str) -> None:
        """Publish a body in pieces, which end anywhere, with pauses between them."""
        head = (
            f"POST {target(session)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sent_at = trio.current_time()
        connection = await trio.open_tcp_stream("127.0.0.1", self._world.daemon.port)
        with trio.fail_after(2 * ANSWER_S):
            async with connection, trio.open_nursery() as nursery:
                nursery.start_soon(self._send_pieces, connection, head.encode(), body)
                try:
                    reply = await read_answer(connection)
                except (EOFError, trio.BrokenResourceError):
                    # It was refused, and the reset overtook the answer.
                    self._world.figures.unanswered += 1
                    self._alias += 1
                    return
                finally:
                    nursery.cancel_scope.cancel()
        if self._was_accepted(reply):
            answer = reply.json()
            if answer["accepted"] != len(postings):
                raise Violation(f"{len(postings)} events were answered {answer}")
            self._enter(Id.parse(answer["first_id"]), postings[0], sent_at)
            self._enter(Id.parse(answer["last_id"]), postings[-1], sent_at)

    async def _send_pieces(self, connection: trio.SocketStream, head: bytes, body: bytes) -> None:
        cuts = sorted(self._dice.randrange(len(body)) for _ in range(self._dice.randrange(6)))
        pieces = [body[i:j] for i, j in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        with suppress(trio.BrokenResourceError):  # refused: the answer says why
            await connection.send_all(head)
            for piece in filter(None, pieces):
                await connection.send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
                await self._world.gate.nap(self._dice.expovariate(1 / PIECE_PAUSE_S))
            await connection.send_all(b"0\r\n\r\n")

    def _was_accepted(self, reply: Answer) -> bool:
        if reply.status == 200:
            self._world.figures.published += reply.json()["accepted"]
            return True
        self._alias += 1
        self._world.figures.refused += 1
        check_refusal(reply)
        return False

    def _enter(self, event_id: Id, posting: Posting, sent_at: float) -> None:
        # It was appended after it was sent: before that plus its ttl it cannot be gone.
        gone_at = None if posting.ttl is None else sent_at + posting.ttl
        now = trio.current_time()
        self._world.ledger.enter(event_id, posting.kind, posting.text, now=now, gone_at=gone_at)


def _array(postings: list[Posting]) -> bytes:
    return f"[{','.join(posting.as_json() for posting in postings)}]".encode()
