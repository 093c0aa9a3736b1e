"""The files of the page: their types, their validators, and a policy that no file breaks."""

from __future__ import annotations

import re

import pytest

from broadcasterd.page.assets import INDEX, POLICY, STATIC, assets

FOUND = assets(is_open=False)


def test_all_files_that_there_are_are_served() -> None:
    assert {path.name for path in STATIC.iterdir()} == set(FOUND)


@pytest.mark.parametrize("name", FOUND)
def test_each_has_its_type_and_the_policy_and_is_asked_for_again(name: str) -> None:
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
    kind = kinds.get(name.rpartition(".")[2])
    fields = FOUND[name].headers

    expected = "image/svg+xml" if kind is None else f"{kind}; charset=utf-8"
    assert (expected, POLICY, "no-cache") == (
        fields["Content-Type"],
        fields["Content-Security-Policy"],
        fields["Cache-Control"],
    )


def test_another_content_has_another_validator() -> None:
    assert len({asset.etag for asset in FOUND.values()}) == len(FOUND)
    assert assets(is_open=True)[INDEX].etag != FOUND[INDEX].etag


@pytest.mark.parametrize(("is_open", "mode"), [(True, "none"), (False, "jwt")])
def test_the_index_says_whether_a_token_is_asked_for(mode: str, *, is_open: bool) -> None:
    assert f'data-auth="{mode}"'.encode() in assets(is_open=is_open)[INDEX].body


def test_the_policy_lets_nothing_in_that_is_not_a_file_of_ours() -> None:
    directives = dict(each.split(" ", 1) for each in POLICY.split("; "))

    assert "'none'" == directives["default-src"]
    assert {"'self'", "'none'", "'script'"} == set(directives.values())


@pytest.mark.parametrize("name", FOUND)
def test_no_file_has_what_the_policy_forbids_or_names_another_host(name: str) -> None:
    text = FOUND[name].body.decode()

    assert [] == re.findall(r"\sstyle=|\son\w+=\"|<script(?![^>]*src=)|<style", text)
    assert [] == re.findall(r"innerHTML|outerHTML|insertAdjacent|eval\(|new Function", text)
    assert {"http://www.w3.org/2000/svg"} >= set(re.findall(r"https?://[^\"'\s)]+", text))


def test_what_a_file_names_is_there() -> None:
    named = {
        match
        for asset in FOUND.values()
        for match in re.findall(r'(?:from "\./|"page/)([\w.]+)"', asset.body.decode())
    }

    assert len(named) > 10
    assert set() == named - set(FOUND)
