"""A configuration in the making: values, setting by setting, and every problem with them."""

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from broadcasterd.config.problems import ConfigError, expectation, nearest, words_for
from broadcasterd.config.sections import MAX_RULES, AlertRule, Config, Section
from broadcasterd.config.values import QUANTITIES, in_units, parse, to_own_type
from broadcasterd.figures.watched import Watched

SECTIONS: Mapping[str, Section] = {
    field.name: getattr(Config(), field.name) for field in msgspec.structs.fields(Config)
}


@cache
def kinds_of(section: str) -> Mapping[str, object]:
    """Return the kind of each key of a section: to find them takes a quarter of a millisecond."""
    return {field.name: field.type for field in msgspec.structs.fields(SECTIONS[section])}


# Their values may be secrets, or hold one (a webhook's URL): a message must not repeat them.
_UNPRINTABLE = frozenset(
    {
        *("auth.secret", "auth.secret_file", "engine.url", "engine.password_file"),
        *("engine.sentinel_password_file", "engine.tls_key"),
        *("alerts.notify_team", "alerts.page_on_call"),
    }
)


def _is_secret(name: str) -> bool:
    return name in _UNPRINTABLE or (name.startswith("alerts.rules") and name.endswith(".action"))


class Draft:
    """The values set so far, by section and key, and every problem met on the way."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
        self.problems: list[str] = []

    def take(self, section: str, key: str, value: object, *, variable: str | None = None) -> None:
        """Convert one value to its field's type; `variable` is the environment's name of it."""
        name, kind = f"{section}.{key}", kinds_of(section)[key]
        if name == "alerts.rules":
            self._take_rules(name, value, variable)
        else:
            self._put(self.values[section], key, value, kind, name=name, variable=variable)

    def _put(
        self,
        into: dict[str, object],
        key: str,
        value: object,
        kind: object,
        *,
        name: str,
        variable: str | None = None,
    ) -> None:
        """Convert a value and put it where it belongs; `name` is that of a problem with it."""
        try:
            meant = value if variable is None else parse(str(value), kind)
            if isinstance(meant, str) and kind in QUANTITIES:
                meant = in_units(meant, *QUANTITIES[kind])
            taken: object = msgspec.convert(
                meant, type=kind, strict=variable is None, dec_hook=to_own_type
            )
            if isinstance(taken, float) and not math.isfinite(taken):
                raise msgspec.ValidationError("Expected a finite number")  # noqa: TRY301
        except msgspec.ValidationError as error:
            shown = "" if _is_secret(name) else f" = {json.dumps(value, default=str)}"
            source = f" (from {variable})" if variable else ""
            hint = nearest(str(value), Watched) if kind is Watched else ""
            self.problems.append(f"{name}{shown}{source}: {expectation(kind, error)}{hint}")
        else:
            into[key] = taken

    def _take_rules(self, name: str, value: object, variable: str | None) -> None:
        """Convert the rules for alerts, table by table, so that a problem names its key."""
        before = len(self.problems)
        source = f" (from {variable})" if variable else ""
        try:
            tables = value if variable is None else json.loads(str(value))
        except json.JSONDecodeError as error:
            self.problems.append(f"{name}{source}: expected JSON: {error}")
            return
        if not isinstance(tables, list) or not all(isinstance(each, Mapping) for each in tables):
            self.problems.append(f"{name}{source}: expected tables, each written [[{name}]]")
            return
        rules = [self._rule(f"{name}[{n}]", table) for n, table in enumerate(tables)]
        names = [str(rule.get("name")) for rule in rules]
        if twice := sorted({each for each in names if names.count(each) > 1}):
            self.problems.append(f'{name}{source}: expected one of each name, has two "{twice[0]}"')
        if len(rules) > MAX_RULES:
            self.problems.append(f"{name}{source}: expected {MAX_RULES} at most, has {len(rules)}")
        if len(self.problems) == before:
            self.values["alerts"]["rules"] = tuple(AlertRule(**rule) for rule in rules)

    def _rule(self, name: str, table: Mapping[str, object]) -> dict[str, Any]:
        """Return the fields of one rule by their names here; those with a problem are missing."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(AlertRule)}
        taken: dict[str, Any] = {}
        for key, value in table.items():
            if field := fields.get(key):
                self._put(taken, field.name, value, field.type, name=f"{name}.{key}")
            else:
                self.problems.append(f"{name}.{key}: unknown key{nearest(key, fields)}")
        for key, field in fields.items():
            if field.required and key not in table:
                self.problems.append(f"{name}.{key}: expected {words_for(field.type)}")
        return taken

    def finish(self) -> Config:
        """Make the configuration, unless there was a problem."""
        if self.problems:
            raise ConfigError("\n".join(self.problems))
        sections = {
            section: msgspec.structs.replace(defaults, **self.values[section])
            for section, defaults in SECTIONS.items()
        }
        return msgspec.structs.replace(Config(), **sections)
