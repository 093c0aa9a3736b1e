"""Tokens and streams, which expire, are renewed and revoked; tickets, browsers, limits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import httpx
import pytest
import trio

from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.following import Following
from tests.support.http1 import Answer, Http1
from tests.support.inprocess import serving, until
from tests.support.paths import Clients, Path, serving_on
from tests.support.talk import (
    CHUNKED,
    JSON,
    NDJSON,
    SOON,
    ask,
    connected,
    eventually,
    following,
    target,
)
from tests.support.tokens import SECRET, bearer, claims, jwt_mode, sign

on_each_path = pytest.mark.parametrize("path", Path, ids=lambda path: path.name.lower())

SHORT = 2
"""Seconds that a token lasts that is to expire: more than it takes to subscribe with it."""

APP = "https://app.example"


def token(*, ttl: float | None = 3600, sub: str = "me", session: str = "s", **more: object) -> str:
    """Return a token to listen to and to publish to one session."""
    return sign(claims(subscribe=(session,), publish=(session,), ttl=ttl, sub=sub, **more))  # type: ignore[arg-type]


ADMIN = bearer(sign(claims(admin=True)))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Iterator[Daemon]:
    """Start one daemon for the tests that need no settings of their own."""
    directory = tmp_path_factory.mktemp("daemon")
    daemon = Daemon.start(
        directory, launch, auth=jwt_mode(directory), server={"cors_origins": [APP]}
    )
    yield daemon
    daemon.stop_cleanly()


def stream_id(stream: Following) -> str:
    """Return what the opening comment calls the stream."""
    return stream.heard[1].removeprefix(": stream ")


async def publish(clients: Clients, data: str) -> None:
    body = json.dumps({"data": data}).encode()
    status, _ = await clients.fetch("POST", target("s"), JSON | bearer(token(sub="back end")), body)

    assert status == 200


# --- expiry ----------------------------------------------------------------------------------


@on_each_path
@pytest.mark.slow
async def test_a_stream_ends_when_its_token_expires(
    path: Path, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    auth = jwt_mode(tmp_path_factory.mktemp("secret"))
    async with serving_on(path, certificate, auth=auth) as (daemon, clients):
        lasting = await clients.follow(target("s"), bearer(token()))
        expiring = await clients.follow(target("s"), bearer(token(ttl=SHORT)))
        await publish(clients, "before")

        assert await expiring.data(1) == ["before"]
        assert await expiring.end() == {"reason": "token_expired", "reconnect": True}

        await publish(clients, "after")

        assert await lasting.data(2) == ["before", "after"]
        assert {"token_expired": 1} == dict(daemon.hub.subscribers.ended_by_reason)


@pytest.mark.slow
async def test_who_comes_back_with_an_expired_token_is_401(daemon: Daemon) -> None:
    expiring = bearer(token(ttl=SHORT))
    async with following(daemon, "s", headers=expiring) as stream:
        await stream.end()
    found = await ask(daemon, "GET", target("s"), expiring)

    assert found.status == 401
    assert "the token has expired" in found.headers["www-authenticate"]


@pytest.mark.slow
async def test_a_page_that_is_waited_for_is_401_when_its_token_expires(daemon: Daemon) -> None:
    started = time.monotonic()
    asked = {"Accept": "application/json"} | bearer(token(ttl=SHORT, session="quiet"))
    found = await ask(daemon, "GET", target("quiet", "wait=30"), asked)

    assert found.status == 401
    assert time.monotonic() - started < 30
    assert found.json()["detail"] == "the token has expired"


@pytest.mark.slow
async def test_a_publisher_that_streams_is_401_when_its_token_expires(daemon: Daemon) -> None:
    headers = NDJSON | CHUNKED | bearer(token(ttl=SHORT, session="long"))
    async with connected(daemon) as client:
        await client.begin("POST", target("long"), headers)
        await client.go_on(b'{"data": 1}\n{"data": 2}\n')
        refused = await client.answer()

    assert refused.status == 401
    assert "invalid_token" in refused.headers["www-authenticate"]
    assert refused.json()["accepted"] == 2


# --- renewal ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_newer_token_makes_a_stream_outlive_the_old(daemon: Daemon) -> None:
    old, exp = bearer(token(ttl=SHORT, session="r")), int(time.time()) + 3600
    async with following(daemon, "r", headers=old) as renewed:
        path = f"/v1/streams/{stream_id(renewed)}/token"
        found = await ask(daemon, "POST", path, bearer(token(exp=exp, session="r")))
        async with following(daemon, "r", headers=old) as expiring:
            assert (await expiring.end())["reason"] == "token_expired"
        newer = JSON | bearer(token(session="r"))
        await ask(daemon, "POST", target("r"), newer, b'{"data": "after"}')

        assert found.status == 200
        assert found.json() == {
            "stream": stream_id(renewed),
            "expires_at": pytest.approx(exp, abs=0.01),
        }
        assert await renewed.data(1) == ["after"]


async def test_an_older_token_does_not_make_a_stream_shorter(daemon: Daemon) -> None:
    exp = int(time.time()) + 3600
    async with following(daemon, "s", headers=bearer(token(exp=exp))) as stream:
        path = f"/v1/streams/{stream_id(stream)}/token"
        older = (await ask(daemon, "POST", path, bearer(token(ttl=60)))).json()
        endless = (await ask(daemon, "POST", path, bearer(token(ttl=None)))).json()

    assert older["expires_at"] == pytest.approx(exp, abs=0.01)
    assert endless["expires_at"] is None


@pytest.mark.parametrize(
    ("renewal", "status"),
    [
        ({"sub": "other"}, 404),
        ({"session": "t"}, 403),
        ({"ttl": -1}, 401),
    ],
)
async def test_a_token_that_does_not_cover_the_stream_renews_nothing(
    renewal: dict[str, object],
    status: int,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    auth = jwt_mode(tmp_path_factory.mktemp("secret"))
    async with serving_on(Path.PLAIN, certificate, auth=auth) as (daemon, clients):
        await clients.follow(target("s"), bearer(token(ttl=600)))
        [stream] = daemon.hub.subscribers.by_id.values()
        before = stream.expires_at
        newer = bearer(token(**renewal))  # type: ignore[arg-type] # its keywords
        found, _ = await clients.fetch("POST", f"/v1/streams/{stream.stream_id}/token", newer)

        assert found == status
        assert before == stream.expires_at


# --- revocation ------------------------------------------------------------------------------


@on_each_path
async def test_to_revoke_a_subject_ends_its_streams_and_no_others(
    path: Path, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    auth = jwt_mode(tmp_path_factory.mktemp("secret"))
    async with serving_on(path, certificate, auth=auth) as (_, clients):
        revoked = [await clients.follow(target("s"), bearer(token())) for _ in range(3)]
        other = await clients.follow(target("s"), bearer(token(sub="other")))
        status, told = await clients.fetch("DELETE", "/v1/subjects/me/streams", ADMIN)

        assert (status, told) == (200, {"subject": "me", "ended": 3})
        for stream in revoked:
            assert await stream.end() == {"reason": "revoked", "reconnect": False}

        await publish(clients, "after")

        assert await other.data(1) == ["after"]


@pytest.mark.parametrize(
    "subject",
    ["https://login.example/users/1|ü", "/C=US/CN=somebody", "a//b/", "/streams", "..", "a\nb"],
)
async def test_every_subject_can_be_named_in_the_path(daemon: Daemon, subject: str) -> None:
    path = f"/v1/subjects/{quote(subject, safe='')}/streams"
    async with following(daemon, "s", headers=bearer(token(sub=subject))) as stream:
        told = (await ask(daemon, "DELETE", path, ADMIN)).json()

        assert told == {"subject": subject, "ended": 1}
        assert (await stream.end())["reason"] == "revoked"


@pytest.mark.parametrize("subject", ["/", "../..", "a\n\x1b[2J", "a/streams", "?&=#%"])
async def test_a_query_names_any_subject(subject: str, daemon: Daemon) -> None:
    async with following(daemon, "s", headers=bearer(token(sub=subject))) as stream:
        path = f"/v1/streams?{urlencode({'subject': subject})}"
        told = (await ask(daemon, "DELETE", path, ADMIN)).json()

        assert told == {"subject": subject, "ended": 1}
        assert await stream.end() == {"reason": "revoked", "reconnect": False}
    denied = await ask(daemon, "GET", "/v1/sessions/s", bearer(token(sub=subject)))
    assert denied.status == 401


async def test_a_revocation_without_a_subject_is_400(daemon: Daemon) -> None:
    assert (await ask(daemon, "DELETE", "/v1/streams", ADMIN)).status == 400


async def test_to_revoke_a_subject_ends_what_else_it_holds_open(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    auth = jwt_mode(tmp_path_factory.mktemp("secret"))
    async with serving(auth=auth) as daemon, trio.open_nursery() as nursery:
        answers: list[int] = []

        async def wait_for(client: Http1) -> None:
            answers.append((await client.answer()).status)

        polling, publishing = [Http1(await daemon.connect()) for _ in range(2)]
        asked = {"Accept": "application/json"} | bearer(token())
        await polling.ask("GET", target("s", "wait=30"), asked)
        await publishing.begin("POST", target("s"), NDJSON | CHUNKED | bearer(token()))
        await until(lambda: len(daemon.hub.interrupts._until_expired) == 2)
        nursery.start_soon(wait_for, polling)
        nursery.start_soon(wait_for, publishing)
        async with await daemon.connect() as connection:
            admin = Http1(connection)
            await admin.ask("DELETE", "/v1/subjects/me/streams", ADMIN)
            await admin.answer()
        await until(lambda: answers == [401, 401])
        await until(lambda: not daemon.hub.interrupts._until_expired)
        for client in (polling, publishing):
            await client.stream.aclose()


# --- tickets ---------------------------------------------------------------------------------


async def ticket(daemon: Daemon, session: str = "s", *, sub: str = "me") -> str:
    body = json.dumps({"session": session}).encode()
    found = await ask(
        daemon, "POST", "/v1/tickets", JSON | bearer(token(session=session, sub=sub)), body
    )
    told = found.json()

    assert found.status == 201, found.body
    assert found.headers["cache-control"] == "no-store"
    assert told == {"ticket": told["ticket"], "session": session, "expires_in": 30}
    return str(told["ticket"])


@pytest.mark.parametrize("path", ["/v1/sessions/s/events", "/agent_network_sse/s"])
async def test_a_ticket_opens_a_stream_once(daemon: Daemon, path: str) -> None:
    url = f"{path}?from=now&ticket={await ticket(daemon)}"
    async with connected(daemon) as client:
        await client.follow(url)
    again = await ask(daemon, "GET", url)

    assert again.status == 401
    assert "the ticket is unknown" in again.headers["www-authenticate"]


async def test_a_ticket_is_for_one_session(daemon: Daemon) -> None:
    found = await ask(daemon, "GET", target("t", f"ticket={await ticket(daemon)}"))

    assert found.status == 401


async def test_a_stream_of_a_ticket_is_its_subjects(daemon: Daemon) -> None:
    unused = await ticket(daemon, sub="listens-with-it")
    async with following(daemon, "s", f"ticket={unused}") as stream:
        path = "/v1/subjects/listens-with-it/streams"
        told = (await ask(daemon, "DELETE", path, ADMIN)).json()

        assert told["ended"] == 1
        assert (await stream.end())["reason"] == "revoked"


async def test_the_tickets_of_a_revoked_subject_open_nothing(daemon: Daemon) -> None:
    unused = await ticket(daemon, sub="ticketed")
    await ask(daemon, "DELETE", "/v1/subjects/ticketed/streams", ADMIN)

    assert (await ask(daemon, "GET", target("s", f"ticket={unused}"))).status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"session": 7}', 422),
        (b'{"session": "s", "x": 1}', 422),
        (b'{"session": "no name"}', 400),
        (b'{"session": "t"}', 403),
        (b" " * 2000, 413),
    ],
)
async def test_a_request_for_a_ticket_of_another_form_is_refused(
    daemon: Daemon, body: bytes, status: int
) -> None:
    assert (await ask(daemon, "POST", "/v1/tickets", bearer(token()), body)).status == status


# --- browsers --------------------------------------------------------------------------------


def cookie(jwt: str) -> dict[str, str]:
    return {"Cookie": f"broadcaster_token={jwt}"}


async def test_a_browser_listens_with_a_cookie(daemon: Daemon) -> None:
    async with following(daemon, "s", "from=now", cookie(token())):
        pass


async def post_with_cookie(daemon: Daemon, origin: dict[str, str]) -> Answer:
    return await ask(daemon, "POST", target("s"), JSON | cookie(token()) | origin, b'{"data": 1}')


async def test_a_cookie_publishes_for_known_pages_alone(daemon: Daemon) -> None:
    own = f"http://127.0.0.1:{daemon.port}"
    host = {"Host": f"127.0.0.1:{daemon.port}"}

    assert (await post_with_cookie(daemon, {"Origin": APP})).status == 200
    assert (await post_with_cookie(daemon, {"Origin": own} | host)).status == 200
    assert (await post_with_cookie(daemon, {"Origin": "https://evil.example"})).status == 403
    assert (await post_with_cookie(daemon, {})).status == 403


async def test_cookies_that_http2_sends_apart_are_put_together(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    auth = jwt_mode(tmp_path_factory.mktemp("secret"))
    async with serving_on(Path.HTTP2, certificate, auth=auth) as (_, clients):
        context = certificate.client_context("h2")
        base = f"https://127.0.0.1:{clients._daemon.port}"
        fields = [("Cookie", "a=b"), ("Cookie", cookie(token())["Cookie"]), ("Cookie", "c=d")]
        fields += [("Accept", "application/json")]
        async with httpx.AsyncClient(http2=True, verify=context) as browser:
            looked = await browser.get(f"{base}{target('s')}", headers=fields)
            published = await browser.post(
                f"{base}{target('s')}", headers=[*fields, ("Origin", base)], json={"data": 1}
            )

    assert looked.http_version == "HTTP/2"
    assert (looked.status_code, published.status_code) == (200, 200)


async def test_a_page_may_ask_whether_it_may_ask_without_a_token(daemon: Daemon) -> None:
    asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
    found = await ask(daemon, "OPTIONS", target("s"), asked)

    assert found.status == 204
    assert found.headers["access-control-allow-origin"] == APP


async def test_a_page_can_read_why_it_is_refused(daemon: Daemon) -> None:
    found = await ask(daemon, "GET", target("s"), {"Origin": APP})

    assert found.status == 401
    assert found.headers["access-control-allow-origin"] == APP
    assert found.headers["access-control-allow-credentials"] == "true"


# --- limits, and the log ---------------------------------------------------------------------


async def test_an_address_with_too_many_bad_tokens_is_429(
    start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    auth = jwt_mode(tmp_path_factory.mktemp("secret"))
    daemon = start_daemon(auth=auth, limits={"max_failures_per_minute": 3})
    bad = bearer(sign(claims(admin=True), SECRET[::-1]))
    found = [await ask(daemon, "GET", "/v1/sessions", bad) for _ in range(5)]
    good = await ask(daemon, "GET", "/v1/sessions", ADMIN)

    assert [each.status for each in found] == [401, 401, 401, 429, 429]
    assert 1 <= int(found[-1].headers["retry-after"]) <= 21
    assert good.status == 200
    assert (await ask(daemon, "GET", "/health/live")).status == 200
    assert (await ask(daemon, "GET", "/v1/sessions")).status == 401


async def test_a_token_in_the_query_is_taken_where_that_is_allowed(
    start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    auth = jwt_mode(tmp_path_factory.mktemp("secret"), allow_query_token=True)
    async with following(start_daemon(auth=auth), "s", f"token={token()}"):
        pass


async def test_a_token_in_the_query_is_no_token_otherwise(daemon: Daemon) -> None:
    found = await ask(daemon, "GET", target("s", f"token={token()}"))

    assert found.status == 401
    assert found.headers["www-authenticate"] == 'Bearer realm="broadcasterd"'


async def test_no_token_gets_into_the_log(
    start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    auth = jwt_mode(tmp_path_factory.mktemp("secret"), allow_query_token=True)
    daemon = start_daemon(auth=auth, log={"level": "debug", "format": "json"})
    good, bad = token(), sign(claims(sub="me"), SECRET[::-1])
    opened = await ticket(daemon)
    async with following(daemon, "s", f"ticket={opened}"), following(daemon, "s", f"token={good}"):
        for carried in (bearer(bad), cookie(bad)):
            await ask(daemon, "GET", target("s"), carried)
        await ask(daemon, "GET", target("s", f"token={bad}"))
        await ask(daemon, "GET", target("s", f"ticket={opened}"))

    async def both_ended() -> bool:
        return daemon.log().count("stream ended") == 2

    await eventually(both_ended)

    assert daemon.log().count("token refused") == 4
    assert not [secret for secret in (good, bad, opened, SECRET) if secret in daemon.log()]


async def test_without_tokens_whatever_is_sent_is_ignored(start_daemon: StartDaemon) -> None:
    with trio.fail_after(SOON):
        found = await ask(start_daemon(), "GET", "/v1/sessions", bearer("nonsense"))

    assert found.status == 200
