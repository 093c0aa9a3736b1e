"""Hosts and origins that a daemon without tokens listens to."""

from __future__ import annotations

import pytest

from broadcasterd.access.hosts import is_local, is_ours


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "LocalHost:8000", "localhost.", "a.localhost:1", "127.0.0.1:8000", "[::1]:80",
     "[::1]", "192.0.2.7", "events.example"],
)  # fmt: skip
def test_an_address_a_local_name_or_one_that_is_listed_is_ours(host: str) -> None:
    assert is_ours(host, ("events.example",))


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example", "a:8000",
     "[::1", "[evil]", "events.example.evil"],
)  # fmt: skip
def test_any_other_name_may_have_been_made_to_point_here(host: str) -> None:
    assert not is_ours(host, ("events.example",))
    assert is_ours(host, ("*",))


@pytest.mark.parametrize("origin", ["http://localhost:5173", "https://127.0.0.1", "http://[::1]:8"])
def test_pages_of_this_machine_are_local(origin: str) -> None:
    assert is_local(origin)


@pytest.mark.parametrize(
    "origin",
    ["", "null", "://", "http://192.0.2.7", "https://evil.example", "http://localhost.evil"],
)
def test_all_other_pages_are_not(origin: str) -> None:
    assert not is_local(origin)
