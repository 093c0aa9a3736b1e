"""Bad tokens by the thousand from an address that good ones come from as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon import StartDaemon
from tests.support.talk import JSON, ask, connected, following, target
from tests.support.tokens import SECRET, bearer, claims, jwt_mode, sign

GUESSES = 1000


@pytest.mark.slow
async def test_good_tokens_and_tickets_pass_whatever_bad_ones_came_from_their_address(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits={"max_failures_per_minute": 5})
    mine = bearer(sign(claims(subscribe=("news",), publish=("news",), sub="me")))
    bad = sign(claims(admin=True), SECRET[::-1])
    async with following(daemon, "news", headers=mine) as stream, connected(daemon) as attacker:
        for _ in range(GUESSES):
            await attacker.ask("GET", "/v1/sessions", bearer(bad))
            assert (await attacker.answer()).status in {401, 429}
            attacker.next_request()

        other = bearer(sign(claims(subscribe=("news",), publish=("news",), sub="other")))
        told = await ask(daemon, "POST", "/v1/tickets", other | JSON, b'{"session": "news"}')
        assert 201 == told.status
        async with following(daemon, "news", f"ticket={told.json()['ticket']}") as ticketed:
            sent = await ask(daemon, "POST", target("news"), other | JSON, b'{"data": "a"}')

            assert 200 == sent.status
            assert ["a"] == await stream.data(1) == await ticketed.data(1)
