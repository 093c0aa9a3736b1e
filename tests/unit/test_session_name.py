"""Session names: texts that are one, and texts that are refused."""

from __future__ import annotations

import string
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcasterd.core.session_name import MAX_NAME_CHARS, check_session_name
from broadcasterd.errors import BadRequest

ALLOWED = string.ascii_letters + string.digits + "._~:-"


@pytest.mark.parametrize(
    "name", ["a", "chat:42", "a.b_c~d-e", "...", ".a", "a.", ALLOWED, "x" * 128]
)
def test_a_name_of_allowed_characters_comes_back_as_it_was(name: str) -> None:
    assert check_session_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "a b", "a/b", "a%20b", "a\n", "\na", "a\0", "ä", "١", "ａ", "a*", "a?b=c"],  # noqa: RUF001
)
def test_anything_else_is_a_bad_request(name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_session_name(name)

    assert refused.value.status == HTTPStatus.BAD_REQUEST
    assert "1-128 characters of A-Z a-z 0-9 . _ ~ : -" in refused.value.detail


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_no_path_can_carry_is_a_bad_request(name: str) -> None:
    with pytest.raises(BadRequest):
        check_session_name(name)


@given(name=st.text(max_size=MAX_NAME_CHARS + 2))
@example(name="ſ")  # its upper case is an ASCII letter  # noqa: RUF001
def test_a_name_is_accepted_by_its_characters_and_length_alone(name: str) -> None:
    allowed = 1 <= len(name) <= MAX_NAME_CHARS and set(name) <= set(ALLOWED)
    allowed &= name not in {".", ".."}

    try:
        accepted = check_session_name(name) == name
    except BadRequest:
        accepted = False

    assert allowed == accepted
