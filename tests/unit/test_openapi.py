"""The description of the HTTP interface: valid, of the routes that there are, with our limits."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from broadcasterd.api.openapi import document
from broadcasterd.api.routes import ROUTES
from broadcasterd.config import Config, from_mapping
from broadcasterd.core.session_name import check_session_name
from broadcasterd.errors import BadRequest

METHODS = {"get", "head", "post", "put", "patch", "delete"}

each_mode = pytest.mark.parametrize("mode", ["jwt", "none"])


def _config(mode: str, **sections: dict[str, object]) -> Config:
    return from_mapping({"auth": {"mode": mode}, **sections})


def _described(config: Config) -> dict[str, Any]:
    """Return the description as its readers get it."""
    return msgspec.json.decode(msgspec.json.encode(document(config)), type=dict[str, Any])


def _nameless(path: str) -> str:
    """Return a path without the names of its variables: those are each side's own."""
    return re.sub(r"\{\w+(\.\.\.)?\}", "{}", path)


@each_mode
def test_it_is_valid(mode: str) -> None:
    # Here: to import it takes half a second, in each process that looks for tests.
    from openapi_spec_validator import OpenAPIV31SpecValidator  # noqa: PLC0415

    OpenAPIV31SpecValidator(_described(_config(mode))).validate()


@each_mode
def test_it_has_the_routes_and_methods_that_there_are_and_no_others(mode: str) -> None:
    described = {
        (_nameless(path), method)
        for path, operations in _described(_config(mode))["paths"].items()
        for method in METHODS & operations.keys()
    }
    # What HEAD says is known by what GET says; OPTIONS is the browsers' own affair (CORS).
    routes = {(_nameless(route.path), route.method.lower()) for route in ROUTES}

    assert described == routes


@each_mode
def test_each_operation_has_a_name_of_its_own(mode: str) -> None:
    names = [
        operations[method]["operationId"]
        for operations in _described(_config(mode))["paths"].values()
        for method in METHODS & operations.keys()
    ]

    assert len(set(names)) == len(names)


def test_it_is_the_same_each_time() -> None:
    first, second = (msgspec.json.encode(document(_config("jwt"))) for _ in range(2))

    assert first == second


def test_it_names_the_limits_of_the_configuration() -> None:
    described = _described(_config("none", server={"max_body_bytes": 12_345}))

    publish = described["paths"]["/v1/sessions/{session}/events"]["post"]
    assert "12345 bytes" in publish["description"]


def test_it_says_who_may_do_what_only_where_that_is_asked() -> None:
    path = "/v1/sessions/{session}/events"
    asked = _described(_config("jwt", auth={"cookie": "crumb"}))
    open_to_all = _described(_config("none"))

    assert {"bearer": ["publish"]} in asked["paths"][path]["post"]["security"]
    assert {"401", "403"} < asked["paths"][path]["post"]["responses"].keys()
    assert asked["components"]["securitySchemes"]["cookie"]["name"] == "crumb"
    assert "security" not in open_to_all["paths"][path]["post"]
    assert not {"401", "403"} & open_to_all["paths"][path]["post"]["responses"].keys()
    assert "securitySchemes" not in open_to_all["components"]


@pytest.mark.parametrize(
    "name",
    ["a", "A-z.0_~:", "x" * 128, "", "x" * 129, "a b", "ä", "a/b", "a\n", "%41", ".", "..", "..."],
)
def test_its_pattern_of_a_session_name_is_what_is_checked(name: str) -> None:
    [parameter] = _described(_config("none"))["paths"]["/v1/sessions/{session}"]["parameters"]
    try:
        allowed = check_session_name(name) == name
    except BadRequest:
        allowed = False

    # Where Python's $ lets a line break pass, JSON Schema's (ECMA-262) does not.
    pattern = parameter["schema"]["pattern"].replace("$", r"\Z")
    assert allowed == bool(re.search(pattern, name))
