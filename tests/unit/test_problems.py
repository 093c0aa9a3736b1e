"""Errors as answers: RFC 9457, and nothing of what nobody foresaw."""

from __future__ import annotations

import json

from broadcasterd.api.problems import from_crash, problem_document
from broadcasterd.errors import Problem, TooMany


def test_a_problem_is_a_document_with_its_own_members() -> None:
    problem = Problem(422, "no data", extra={"line": 3})

    assert json.loads(problem_document(problem)) == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "no data",
        "line": 3,
    }


def test_when_to_come_back_is_a_header() -> None:
    assert {"Retry-After": "7"} == TooMany("too much", retry_after=7).headers


def test_a_crash_tells_a_stranger_nothing() -> None:
    problem = from_crash(RuntimeError("a secret of ours"))

    assert problem.status == 500
    assert b"secret" not in problem_document(problem)
