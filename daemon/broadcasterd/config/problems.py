"""What is wrong with a configuration, in words: what was expected, and what may be meant."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from broadcasterd.figures.watched import Watched


class ConfigError(ValueError):
    """The configuration cannot be used. One line per problem: key, value, what was expected."""


ENVIRONMENT_PREFIX = "BROADCASTERD_"


def expectation(kind: object, error: Exception) -> str:
    """Say what was expected: in the type's own words, or else in the parser's."""
    if words := words_for(kind):
        return f"expected {words}"
    return str(error).replace("`", "")


def words_for(kind: object) -> str:
    """Return what a kind takes, in words; nothing where there are none."""
    if kind is bool:
        return "true or false"
    if kind is Path:
        return "a path"
    if kind is Watched or get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind) or Watched)}"
    if get_origin(kind) is Annotated and (described := get_args(kind)[1].description):
        return str(described)
    if get_origin(kind) is tuple and (elements := words_for(get_args(kind)[0])):
        return f"a list of {elements.removeprefix('one of ')}"
    # An optional value's words are those of the value.
    return next((words for inner in get_args(kind) if (words := words_for(inner))), "")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known name that is most like it, if one is."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def nearest_variable(variable: str, known: Iterable[str]) -> str:
    """Return a hint: the one with as many underscores as there should be, or a similar one."""
    by_text = {name.removeprefix(ENVIRONMENT_PREFIX).replace("__", "_"): name for name in known}
    text = variable.removeprefix(ENVIRONMENT_PREFIX).replace("__", "_")
    near = difflib.get_close_matches(text, by_text, n=1)
    return f" (did you mean {by_text[near[0]]}?)" if near else ""
