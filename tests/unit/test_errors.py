"""Errors that have an answer: the status and words that a client gets."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from broadcasterd.errors import (
    BadRequest,
    InvalidEvent,
    NoSuchSession,
    Problem,
    SessionEnded,
    TooLarge,
    Unavailable,
)


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (BadRequest("x"), 400),
        (InvalidEvent("x"), 422),
        (InvalidEvent("x", status=HTTPStatus.BAD_REQUEST), 400),
        (TooLarge("x"), 413),
        (NoSuchSession("x"), 404),
        (SessionEnded("x"), 409),
        (Unavailable("x", retry_after=3), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Problem) else str(value),
)
def test_each_problem_has_its_status_and_the_phrase_for_it(problem: Problem, status: int) -> None:
    assert problem.status == status
    assert problem.title == HTTPStatus(status).phrase


def test_the_detail_is_what_a_log_shows_of_it() -> None:
    assert str(Problem(418, "what was expected")) == "what was expected"


def test_a_bad_request_can_say_more_in_members_of_its_own() -> None:
    problem = BadRequest("not an event", index=3)

    assert problem.extra == {"index": 3}
    assert problem.headers == {}


def test_unavailable_says_when_to_come_back() -> None:
    assert Unavailable("draining", retry_after=5).headers == {"Retry-After": "5"}


def test_a_problem_keeps_its_own_copy_of_what_it_was_given() -> None:
    headers = {"Allow": "GET"}
    extra: dict[str, object] = {"limit": 10}
    problem = Problem(405, "x", headers=headers, extra=extra)

    headers.clear()
    extra.clear()

    assert problem.headers == {"Allow": "GET"}
    assert problem.extra == {"limit": 10}


@pytest.mark.parametrize("problem", [NoSuchSession("chat:42"), SessionEnded("chat:42")])
def test_a_problem_with_a_session_names_it(problem: Problem) -> None:
    assert "'chat:42'" in problem.detail
