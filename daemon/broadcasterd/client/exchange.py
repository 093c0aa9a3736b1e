"""Calls as steps, and what carries them out: in a thread, or in an event loop.

A call is a generator. It yields what to do next, is sent what came of that, and does no I/O itself:
so the same call runs in `Client` and in `AsyncClient`.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self, TypeAlias, TypeVar, cast

import anyio
import httpx
from typing_extensions import override

from broadcasterd.client.connection import UNUSABLE

Token: TypeAlias = str | Callable[[], str] | None
"""A bearer token, or what returns one: it is called at first, and where another one is needed."""

AsyncToken: TypeAlias = str | Callable[[], str | Awaitable[str]] | None
"""The same, of an event loop."""

FAILURES = (httpx.HTTPError, *UNUSABLE)
"""What is raised where no answer comes."""


class Credentials:
    """The token of this moment, and where the next one comes from.

    Attributes:
        token: sent with requests; ``None`` where there is none, or none yet.

    """

    def __init__(self, token: AsyncToken) -> None:
        self._make = token if callable(token) else None
        self.token = None if callable(token) else token

    @property
    def renewable(self) -> bool:
        """Whether there is another one to be had."""
        return self._make is not None

    @property
    def missing(self) -> bool:
        """Whether one is to be got before anything is asked."""
        return self.renewable and self.token is None

    @property
    def headers(self) -> dict[str, str]:
        """The field that carries it."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def renew(self) -> None:
        """Get another one, in a thread."""
        if self._make is not None:
            self.token = cast("str", self._make())

    async def renew_async(self) -> None:
        """Get another one, in an event loop."""
        if self._make is not None:
            made = self._make()
            self.token = await made if inspect.isawaitable(made) else made


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A step: a request. What comes of it is its response, or what was raised instead."""

    method: str = "GET"
    url: str
    timeout: httpx.Timeout
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    follow_redirects: bool = True

    def build(
        self, http: httpx.Client | httpx.AsyncClient, also: Mapping[str, str]
    ) -> httpx.Request:
        """Return the request, with these fields, too."""
        return http.build_request(
            self.method,
            self.url,
            timeout=self.timeout,
            params=self.params or None,
            headers={**self.headers, **also},
            content=self.content,
        )


@dataclass(frozen=True, slots=True)
class Wait:
    """A step: let so many seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Renew:
    """A step: get another token."""


Step = Ask | Wait | Renew
Outcome = httpx.Response | Exception | None
Result = TypeVar("Result")
Call: TypeAlias = Generator[Step, Outcome, Result]


def answer(came: Outcome) -> httpx.Response:
    """Return the response to what was asked.

    Raises:
        Exception: there is none, one of `FAILURES`.

    """
    if isinstance(came, Exception):
        raise came
    return cast("httpx.Response", came)


def ask(step: Ask, credentials: Credentials) -> Call[httpx.Response]:
    """Return the response, to a second attempt where the first one's token was not good any more.

    Raises:
        Exception: there is none, one of `FAILURES`.

    """
    response = answer((yield step))
    if response.status_code == HTTPStatus.UNAUTHORIZED and credentials.renewable:
        yield Renew()
        response = answer((yield step))
    return response


class Exchange:
    """Carries out calls in a thread.

    Args:
        http: asks.
        credentials: go with each request.
        sleep: waits; takes seconds.

    """

    def __init__(
        self,
        http: httpx.Client,
        credentials: Credentials,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.http = http
        self.credentials = credentials
        self._sleep = sleep

    def run(self, call: Call[Result]) -> Result:
        """Carry out a call, and return its result."""
        came: Outcome = None
        while True:
            try:
                step = call.send(came)
            except StopIteration as done:
                return cast("Result", done.value)
            came = self._carry_out(step)

    def get_ready(self) -> None:
        """Get a token, where there is to be one and is none yet."""
        if self.credentials.missing:
            self.credentials.renew()

    def open(self, step: Ask) -> httpx.Response:
        """Ask, and return the response when its head is there; it is to be closed."""
        request = step.build(self.http, self.credentials.headers)
        return self.http.send(request, stream=True, follow_redirects=step.follow_redirects)

    def _carry_out(self, step: Step) -> httpx.Response | Exception | None:
        match step:
            case Wait(seconds):
                self._sleep(seconds)
            case Renew():
                self.credentials.renew()
            case Ask():
                self.get_ready()
                try:
                    request = step.build(self.http, self.credentials.headers)
                    return self.http.send(request, follow_redirects=step.follow_redirects)
                except FAILURES as error:
                    return error
        return None


class _Once(httpx.AsyncByteStream):
    """A request's body: httpx's own is a generator, and Trio warns of one that is left half-way."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    @override
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._body is None:
            raise StopAsyncIteration
        body, self._body = self._body, None
        return body


class AsyncExchange:
    """Carries out calls in an event loop, Trio's or asyncio's.

    Args:
        http: asks.
        credentials: go with each request.

    """

    def __init__(self, http: httpx.AsyncClient, credentials: Credentials) -> None:
        self.http = http
        self.credentials = credentials

    async def run(self, call: Call[Result]) -> Result:
        """Carry out a call, and return its result."""
        came: Outcome = None
        while True:
            try:
                step = call.send(came)
            except StopIteration as done:
                return cast("Result", done.value)
            came = await self._carry_out(step)

    async def get_ready(self) -> None:
        """Get a token, where there is to be one and is none yet."""
        if self.credentials.missing:
            await self.credentials.renew_async()

    async def open(self, step: Ask) -> httpx.Response:
        """Ask, and return the response when its head is there; it is to be closed."""
        return await self._send(step, stream=True)

    async def _send(self, step: Ask, *, stream: bool = False) -> httpx.Response:
        request = step.build(self.http, self.credentials.headers)
        if step.content is not None:
            request.stream = _Once(step.content)
        return await self.http.send(request, stream=stream, follow_redirects=step.follow_redirects)

    async def _carry_out(self, step: Step) -> httpx.Response | Exception | None:
        match step:
            case Wait(seconds):
                await anyio.sleep(seconds)
            case Renew():
                await self.credentials.renew_async()
            case Ask():
                await self.get_ready()
                try:
                    return await self._send(step)
                except FAILURES as error:
                    return error
        return None
