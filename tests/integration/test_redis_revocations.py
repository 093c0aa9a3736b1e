"""Several daemons on one Redis: a subject that is revoked at one of them is revoked at all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from broadcasterd.access.revocations import MAX_REVOKED
from broadcasterd.broadcast.hub import Hub
from broadcasterd.engine.redis import revoking
from broadcasterd.handover.transfer import Connections, hand_over, restore
from tests.support.http1 import Answer
from tests.support.inprocess import Serving, until
from tests.support.nodes import node, nodes
from tests.support.redis import Redis, cluster, move_slot, redis, sentinels
from tests.support.shelf import Shelf
from tests.support.talk import JSON, ask, eventually, following, target
from tests.support.tokens import bearer, claims, jwt_mode, sign

REVOKED = {"reason": "revoked", "reconnect": False}
KEY = "broadcasterd:revoked"

ADMIN = bearer(sign(claims(admin=True)))

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Start one Redis for all tests of this file; each has subjects of its own."""
    with redis() as server:
        yield server


@pytest.fixture
def subject() -> str:
    """Return a subject that no other test revokes."""
    return f"user/{next(_numbers)}|ü"


@pytest.fixture
def auth(tmp_path: Path) -> dict[str, object]:
    """Return settings of nodes that ask for tokens."""
    return jwt_mode(tmp_path)


def token(subject: str, *, issued_at: float | None = None) -> Mapping[str, str]:
    """Return the header of a token to listen with."""
    issued_at = time.time() - 10 if issued_at is None else issued_at
    return bearer(sign(claims(subscribe=("*",), sub=subject, iat=issued_at)))


async def revoke(at: Serving, subject: str) -> Answer:
    """Revoke a subject."""
    return await ask(at, "DELETE", f"/v1/streams?subject={subject}".replace("ü", "%C3%BC"), ADMIN)


async def status(at: Serving, held: Mapping[str, str]) -> int:
    """Return whether a token is taken: 404, for there is no such session, or 401."""
    return (await ask(at, "GET", "/v1/sessions/none", held)).status


async def until_denied(at: Serving, *subjects: str) -> None:
    """Wait until a node takes no token of theirs: it may reach Redis a little after its start."""

    async def are_denied() -> bool:
        return [await status(at, token(each)) for each in subjects] == len(subjects) * [401]

    await eventually(are_denied)


async def is_healthy(at: Serving) -> bool:
    return bool((await ask(at, "GET", "/health")).json()["status"] == "healthy")


async def is_degraded(at: Serving) -> bool:
    return bool((await ask(at, "GET", "/health")).json()["status"] == "degraded")


async def test_what_a_subject_has_at_another_node_is_ended_and_denied(
    server: Redis, auth: dict[str, object], subject: str
) -> None:
    held, others = token(subject), token("somebody")
    async with (
        nodes(2, server.url, auth=auth) as (a, b),
        following(a, "s", headers=held) as here,
        following(b, "s", headers=held) as there,
        following(b, "s", headers=others),
    ):
        issued = await ask(b, "POST", "/v1/tickets", {**held, **JSON}, b'{"session": "s"}')
        revoked = await revoke(a, subject)
        ends = [await here.end(), await there.end()]
        denied = [await status(each, held) for each in (a, b)]
        ticket = await ask(b, "GET", target("s", f"ticket={issued.json()['ticket']}"))
        newer = [await status(each, token(subject, issued_at=time.time())) for each in (a, b)]
        streams = len(b.hub.subscribers)
        of_others = await status(b, others)

    assert (revoked.status, revoked.json()) == (200, {"subject": subject, "ended": 1})
    assert ends == 2 * [REVOKED]
    assert denied == [401, 401]
    assert ticket.status == 401
    assert newer == [404, 404]
    assert (streams, of_others) == (1, 404)


async def test_a_node_that_starts_later_knows_all_who_were_revoked(
    server: Redis, auth: dict[str, object], subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoking, "PAGE", 2)  # the last one is not full
    subjects = [f"{subject}-{number}" for number in range(5)]
    async with node(server.url, auth=auth) as earlier:
        for each in subjects:
            await revoke(earlier, each)
        known = dict(earlier.hub.revocations)
    async with node(server.url, auth=auth) as later:
        ours = [each for each in later.hub.revocations if each[0] in subjects]
        denied = [await status(later, token(each)) for each in subjects]

    assert ours == [(each, known[each]) for each in subjects], "who was revoked first comes first"
    assert denied == 5 * [401]


async def test_of_two_times_the_later_one_counts(
    server: Redis, auth: dict[str, object], subject: str
) -> None:
    async with nodes(2, server.url, auth=auth) as (a, b):
        now = a.hub.clock.unix_now
        a.hub.clock.unix_now = lambda: now() + 100
        await revoke(a, subject)
        await revoke(b, subject)
        newest = dict(a.hub.revocations)[subject]
        await until(lambda: dict(b.hub.revocations)[subject] == newest)
        async with node(server.url, auth=auth) as later:
            found = dict(later.hub.revocations)[subject]

    assert newest > time.time() + 50
    assert found == newest


@pytest.mark.slow
async def test_beyond_the_bound_the_one_that_was_revoked_first_is_forgotten(
    auth: dict[str, object], subject: str
) -> None:
    fill = "for i = 1, ARGV[1] do redis.call('ZADD', KEYS[1], i, 'old-' .. i) end"
    with redis() as server:
        server.ask("EVAL", fill, "1", KEY, str(MAX_REVOKED))
        async with nodes(2, server.url, auth=auth) as (a, b):
            await revoke(a, subject)
            await until(lambda: subject in dict(b.hub.revocations))
            kept = [server.ask("ZSCORE", KEY, f"old-{number}") for number in (1, 2)]
            known = [len(each.hub.revocations) for each in (a, b)]
            found = [dict(each.hub.revocations).keys() & {"old-1", "old-2"} for each in (a, b)]
        count = server.ask("ZCARD", KEY)

    assert kept == ["", "2"]
    assert count == str(MAX_REVOKED)
    assert known == 2 * [MAX_REVOKED]
    assert found == 2 * [{"old-2"}]


async def test_what_was_handed_over_ends_too_if_it_was_revoked_meanwhile(
    server: Redis, auth: dict[str, object], subject: str
) -> None:
    shelf = Shelf()

    async def take_up(hub: Hub, connections: Connections) -> tuple[()]:
        await restore(hub, shelf, connections)
        return ()

    async with (
        node(server.url, auth=auth) as other,
        node(server.url, auth=auth) as before,
        following(before, "s", headers=token(subject)) as stream,
    ):
        await hand_over(before.hub, shelf)
        await revoke(other, subject)
        async with node(server.url, take_up, auth=auth):
            end = await stream.end()

    assert end == REVOKED


@pytest.mark.slow
async def test_a_node_that_was_cut_off_learns_it_once_it_is_back(
    auth: dict[str, object], subject: str, tmp_path: Path
) -> None:
    held = token(subject)
    password = tmp_path / "password"
    password.write_text("secret-of-b")
    with redis() as server:
        server.ask("ACL", "SETUSER", "b", "on", ">secret-of-b", "~*", "&*", "+@all")
        engine = {"url": f"unix://b@{server.path}", "password_file": str(password)}
        async with (
            node(server.url, auth=auth) as a,
            node(server.url, auth=auth, engine=engine) as b,
            following(b, "s", headers=held) as stream,
        ):
            server.ask("ACL", "SETUSER", "b", "off")
            server.ask("CLIENT", "KILL", "USER", "b")
            await eventually(lambda: is_degraded(b))
            revoked = await revoke(a, subject)
            meanwhile = await status(b, held)
            server.ask("ACL", "SETUSER", "b", "on")
            end = await stream.end()
            denied = await status(b, held)
            await eventually(lambda: is_healthy(b))

    assert revoked.status == 200
    assert meanwhile == 404, "it was not cut off"
    assert (end, denied) == (REVOKED, 401)


@pytest.mark.slow
async def test_without_redis_it_is_in_force_here_answered_503_and_told_once_redis_is_back(
    auth: dict[str, object], subject: str
) -> None:
    held = token(subject)
    with redis() as server:
        async with (
            nodes(2, server.url, auth=auth) as (a, b),
            following(a, "s", headers=held) as here,
            following(b, "s", headers=held) as there,
        ):
            server.kill()
            await eventually(lambda: is_degraded(a))
            refused = await revoke(a, subject)
            end = await here.end()
            denied = [await status(each, held) for each in (a, b)]
            server.start()
            told = await there.end()
            again = await revoke(a, subject)

    assert refused.status == 503
    assert "retry-after" in refused.headers
    assert (end, denied) == (REVOKED, [401, 404])
    assert told == REVOKED
    assert again.status == 200


@pytest.mark.slow
async def test_a_redis_that_comes_back_empty_is_told_anew(
    auth: dict[str, object], subject: str
) -> None:
    with redis() as server:
        async with node(server.url, auth=auth) as earlier:
            await revoke(earlier, subject)
            server.kill()
            server.start()
            await until(lambda: server.ask("ZCARD", KEY) == "1", within=30)
            async with node(server.url, auth=auth) as later:
                await until_denied(later, subject)


@pytest.mark.slow
async def test_it_is_answered_once_replicas_have_it(auth: dict[str, object], subject: str) -> None:
    engine = {"timeout": 2.0, "replicas": 1}
    with sentinels() as (primary, replica, url):
        async with nodes(2, url, auth=auth, engine=engine) as (a, b):
            taken = await revoke(a, subject)
            kept = replica.ask("ZSCORE", KEY, subject)
            replica.ask("REPLICAOF", "127.0.0.1", "1")  # where nobody is: it gets no more
            refused = await revoke(b, subject)
            replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))

            async def is_taken() -> bool:
                return (await revoke(b, subject)).status == 200

            await eventually(is_taken, within=30)

    assert (taken.status, refused.status) == (200, 503)
    assert kept


@pytest.mark.slow
async def test_it_holds_in_a_cluster_also_where_its_slot_is_moved(auth: dict[str, object]) -> None:
    with cluster() as (servers, url):
        async with nodes(2, url, auth=auth, engine={"timeout": 2.0}) as (a, b):
            for subject, asked, other in (("one", a, b), ("two", b, a), ("three", b, a)):
                async with following(other, "s", headers=token(subject)) as stream:

                    async def is_taken(asked: Serving = asked, subject: str = subject) -> bool:
                        return (await revoke(asked, subject)).status == 200

                    await eventually(is_taken, within=30)
                    assert await stream.end() == REVOKED
                move_slot(KEY, servers)
            async with node(url, auth=auth) as later:
                await until_denied(later, "one", "two", "three")
