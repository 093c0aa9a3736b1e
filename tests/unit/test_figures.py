"""The client that asks for figures, against a server that answers as told."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from broadcasterd.client import AsyncClient, RequestFailed, Unavailable
from tests.unit.test_client import Script, answer

GOOD = '{"status":"healthy","version":"1","sessions":3,"of_a_newer_daemon":{}}'
JSON = "application/json"
CLOSE = "Connection: close\r\n"


@contextmanager
def played(*answers: bytes) -> Iterator[tuple[str, list[str]]]:
    """Answer as told while inside; the address, and what was asked."""
    script = Script(*answers)
    try:
        yield script.url.removesuffix("/v1/sessions/s/events"), script.requests
    finally:
        script.finish()


@asynccontextmanager
async def asking(*answers: bytes, token: str | None = None) -> AsyncIterator[AsyncClient]:
    with played(*answers) as (url, _):
        async with AsyncClient(url, token=token) as figures:
            yield figures


def good(body: str, status: int = 200) -> bytes:
    return answer(status, body, kind=JSON, extra=CLOSE)


async def test_a_daemon_tells_its_figures_to_an_admins_token() -> None:
    with played(good(GOOD)) as (url, requests):
        async with AsyncClient(f"{url}/", token="t0") as figures:
            stats = await figures.stats()

    assert (3, "healthy", 0) == (stats.sessions, stats.status, stats.streams)
    assert requests[0].startswith("GET /stats HTTP/1.1\r\n")
    assert "Authorization: Bearer t0\r\n" in requests[0]


async def test_json_is_what_the_daemon_said() -> None:
    async with asking(good(GOOD)) as figures:
        assert GOOD == await figures.stats_as_json()


async def test_an_unhealthy_daemon_tells_its_alerts() -> None:
    body = '{"status":"unhealthy","alerts":["memory_critical"]}'
    async with asking(good(body, 503)) as figures:
        assert ["memory_critical"] == (await figures.health()).alerts


async def test_a_daemon_that_knows_no_alerts_has_none() -> None:
    async with asking(good('{"status":"healthy"}')) as figures:
        assert [] == (await figures.health()).alerts


async def test_sessions_come_page_after_page() -> None:
    pages = ('{"sessions":[{"session":"a"}],"next":"a&b"}', '{"sessions":[{"session":"b"}]}')
    with played(*map(good, pages)) as (url, requests):
        async with AsyncClient(url) as figures:
            names = [each.session async for each in figures.sessions()]

    assert ["a", "b"] == names
    assert requests[0].startswith("GET /v1/sessions?limit=1000&cursor= ")
    assert requests[1].startswith("GET /v1/sessions?limit=1000&cursor=a%26b ")


Ask = Callable[[AsyncClient], Awaitable[object]]
each_question = pytest.mark.parametrize(
    "ask", [AsyncClient.stats, AsyncClient.health], ids=["stats", "health"]
)


@each_question
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_is_final_and_says_why(status: int, ask: Ask) -> None:
    async with asking(answer(status, '{"detail":"not you"}')) as figures:
        with pytest.raises(RequestFailed, match=f"^{status} .* from http://.*: not you") as failed:
            await ask(figures)

    assert not isinstance(failed.value, Unavailable)


@each_question
@pytest.mark.parametrize("status", [429, 502, 503])
async def test_a_bad_moment_may_pass(status: int, ask: Ask) -> None:
    async with asking(answer(status, "<html>a gateway's page</html>")) as figures:
        with pytest.raises(Unavailable, match=f"^{status} .* from http://"):
            await ask(figures)


@each_question
@pytest.mark.parametrize("body", ["<html>", "[]", "{}", "\ud83d"], ids=ascii)
async def test_what_is_no_daemons_answer_is_refused(body: str, ask: Ask) -> None:
    said = body.encode(errors="surrogatepass")
    async with asking(answer(200, kind=JSON, extra=CLOSE) + said) as figures:
        with pytest.raises(RequestFailed, match="this is no answer of broadcasterd"):
            await ask(figures)


async def test_a_daemon_that_is_not_there_may_come() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with AsyncClient(url) as figures:
            with pytest.raises(Unavailable) as failed:
                await figures.stats()

    assert f"{url}/stats: Connection refused" == str(failed.value)
