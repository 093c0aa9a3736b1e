"""How a file and the environment set the configuration."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from broadcasterd import former_names
from broadcasterd.config.checks import check_pairs
from broadcasterd.config.draft import SECTIONS, Draft, kinds_of
from broadcasterd.config.problems import ENVIRONMENT_PREFIX, ConfigError, nearest, nearest_variable
from broadcasterd.config.sections import Config
from broadcasterd.config.values import TRUTH

_NO_SETTINGS = tuple(f"{ENVIRONMENT_PREFIX}{name}" for name in ("CONFIG", "URL", "TOKEN", "TEST_"))
"""Of the command line, and of the project's own tests."""


SECRET_VARIABLE = "BROADCASTERD_AUTH__SECRET"  # noqa: S105 (a name)


ENVIRONMENT_ONLY: Mapping[str, str] = {"auth.secret": "auth.secret_file"}
"""Keys that no file may have, since files are read and copied by many; the key that it may have."""


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the file, let the environment override it, and check the whole.

    Args:
        path: the file; without one, the file that `BROADCASTERD_CONFIG` names; without that, the
            packaged defaults.
        environ: `BROADCASTERD_<SECTION>__<KEY>` overrides a key; `USE_LEGACY_BROADCASTER=true`
            switches memory management off, whatever `memory.breaker` says.

    Raises:
        ConfigError: naming every problem that was found, not only the first.
    """
    if path is None and (named := environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")):
        path = Path(named)
    return _build(_read(path) if path is not None else {}, environ)


def from_mapping(tables: Mapping[str, object]) -> Config:
    """Make a configuration of what a TOML parser returns, as `load` does.

    Raises:
        ConfigError: as `load` does.
    """
    return _build(tables, {})


def _build(tables: Mapping[str, object], environ: Mapping[str, str]) -> Config:
    draft = Draft()
    _take_tables(draft, tables)
    _take_environment(draft, environ)
    config = draft.finish()
    check_pairs(config)
    return config


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _take_tables(draft: Draft, tables: Mapping[str, object]) -> None:
    for section, table in tables.items():
        if section in former_names.KEYS:
            draft.problems.append(f"{section}: here it is {former_names.KEYS[section]}")
        elif at_home := [name for name in SECTIONS if section in kinds_of(name)]:
            words = " or ".join(f"[{name}]" for name in at_home)
            draft.problems.append(f"{section}: expected in a section: {words}")
        elif section not in SECTIONS:
            draft.problems.append(f"{section}: unknown section{nearest(section, SECTIONS)}")
        elif not isinstance(table, Mapping):
            draft.problems.append(f"{section}: expected a table, written [{section}]")
        else:
            for key, value in table.items():
                if instead := ENVIRONMENT_ONLY.get(f"{section}.{key}"):
                    draft.problems.append(
                        f"{section}.{key}: no key of a file; expected {instead}, or"
                        f" {variable_of(section, key)} in the environment"
                    )
                elif key in kinds_of(section):
                    draft.take(section, key, value)
                else:
                    hint = nearest(key, kinds_of(section))
                    if key in former_names.KEYS:
                        hint = f"; here it is {former_names.KEYS[key]}"
                    draft.problems.append(f"{section}.{key}: unknown key{hint}")


def _take_environment(draft: Draft, environ: Mapping[str, str]) -> None:
    known = {
        variable_of(section, key): (section, key)
        for section in SECTIONS
        for key in kinds_of(section)
    }
    for variable, text in environ.items():
        if variable in known:
            section, key = known[variable]
            draft.take(section, key, text, variable=variable)
        elif variable in former_names.VARIABLES:
            draft.problems.append(f"{variable}: here it is {former_names.VARIABLES[variable]}")
        elif variable.startswith(ENVIRONMENT_PREFIX) and not variable.startswith(_NO_SETTINGS):
            draft.problems.append(f"{variable}: no setting{nearest_variable(variable, known)}")

    legacy = environ.get("USE_LEGACY_BROADCASTER", "").strip().lower()
    if legacy and legacy not in TRUTH:
        draft.problems.append(f'USE_LEGACY_BROADCASTER = "{legacy}": expected true or false')
    elif legacy and TRUTH[legacy]:
        draft.values["memory"]["breaker"] = False


def variable_of(section: str, key: str) -> str:
    """Return the name of a setting in the environment."""
    return f"{ENVIRONMENT_PREFIX}{section}__{key}".upper()
