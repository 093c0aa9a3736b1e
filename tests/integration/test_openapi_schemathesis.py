"""Requests made from the description that the daemon serves get answers that it describes.

schemathesis makes them: requests that the description allows and forbids, each boundary, and
sequences in which one answer's id is the next request's parameter. It checks each answer's
status, media type, header fields and schema, and that a request without its token is refused.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio

from tests.support.daemon import CANARY, Daemon, StartDaemon
from tests.support.tokens import bearer, claims, jwt_mode, sign
from tests.support.tools import ROOT, require

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("BROADCASTERD_TEST_EXAMPLES", "3"))
"""Requests of each operation that are drawn; those at its boundaries come on top."""

PHASES = "examples,coverage,fuzzing,stateful"
OF_STRANGERS = "fuzzing"
"""Without a token nothing follows from an answer, one operation alone has an example, and to go to
the boundaries of the others would be to be refused for want of a token 700 times."""

METHODS = {"DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}

RUN_S = 120.0
"""How long a run may take, on a loaded machine."""

CONFIG = """
hooks = "tests.support.schemathesis_hooks"
max-stream-events = 1
cache.enabled = false

[headers]
{headers}

[generation]
deterministic = true
max-examples = {examples}
with-security-parameters = {tokens}

[checks]
# A stream takes no notice of what is for pages, a JSON body none of what is for text.
negative_data_rejection.enabled = false
# A closed session's events are 204, so that an EventSource stops.
use_after_free.enabled = false
# Without a good token nothing is accepted.
positive_data_acceptance.enabled = {accepted}
"""

FOR_ALL = bearer(sign(claims(subscribe=("*",), publish=("*",), admin=True, sub="fuzz")))

# Many bad tokens come from here, and many events.
UNLIMITED = {"max_failures_per_minute": 1_000_000, "publish_rate": 1e6, "publish_burst": 1_000_000}


async def _fuzz(
    daemon: Daemon, directory: Path, headers: Mapping[str, str], phases: str = PHASES
) -> None:
    config = directory / "schemathesis.toml"
    fields = "\n".join(f'{name} = "{value}"' for name, value in headers.items())
    good, made_up = ("true", "false") if headers else ("false", "true")
    config.write_text(
        CONFIG.format(headers=fields, examples=EXAMPLES, tokens=made_up, accepted=good)
    )
    command = [require(".venv-tools/bin/schemathesis"), "--config-file", str(config)]
    command += ["run", f"{daemon.url}/openapi.json", "--no-color", "--continue-on-failure"]
    command += ["--phases", phases]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_talking, daemon)
        with trio.fail_after(RUN_S):
            run = await trio.run_process(
                command,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        nursery.cancel_scope.cancel()

    assert run.returncode == 0, run.stdout.decode()
    assert "[error" not in daemon.log(), daemon.log()


async def _keep_talking(daemon: Daemon) -> None:
    """Publish to every session that has a listener: no stream is silent, no page waits for long."""
    async with httpx.AsyncClient(base_url=daemon.url, headers=FOR_ALL) as client:
        while True:
            with suppress(httpx.HTTPError):
                page = (await client.get("/v1/sessions", params={"limit": 1000})).json()
                for session in page["sessions"]:
                    if session["subscribers"]:
                        path = f"/v1/sessions/{session['session']}/events"
                        await client.post(path, json={"data": CANARY})
            await trio.sleep(0.1)


async def test_who_may_do_all_gets_what_is_described(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits=UNLIMITED)

    await _fuzz(daemon, tmp_path, FOR_ALL)


async def test_who_has_no_good_token_gets_what_is_described(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits=UNLIMITED)

    await _fuzz(daemon, tmp_path, {}, OF_STRANGERS)


async def test_a_method_that_is_not_described_is_refused_to_strangers_too(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits=UNLIMITED)
    async with httpx.AsyncClient(base_url=daemon.url) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        described = {
            re.sub(r"{\w+}", "x", path): {method.upper() for method in operations} & METHODS
            for path, operations in paths.items()
        }
        answers = {
            (path, method): await client.request(method, path)
            for path, methods in described.items()
            for method in METHODS - methods
        }

    assert len(answers) > 100
    for (path, method), answer in answers.items():
        told = (answer.status_code, answer.headers.get("Content-Type"))
        assert (405, "application/problem+json") == told, (method, path)
        assert described[path] == {*answer.headers["Allow"].split(", ")} & METHODS, path


async def test_the_description_is_served_to_anyone_as_json(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path))
    async with httpx.AsyncClient(base_url=daemon.url) as client:
        answer = await client.get("/openapi.json")

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["Content-Type"]
    assert "3.1.0" == answer.json()["openapi"]
