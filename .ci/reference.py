"""Writes what can be read off the commands and the settings: reference, man pages, completions.

`make reference` writes them into the checkout, where they are kept: a release and a package are
made without this. tests/unit/test_reference.py holds that they are current.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click
import msgspec
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from broadcasterd.cli import commands
from broadcasterd.config import ENVIRONMENT_ONLY, SHIPPED_RULES, AlertRule, Config
from broadcasterd.config.loading import variable_of
from broadcasterd.config.problems import words_for
from broadcasterd.config.sections import Section

ROOT = Path(__file__).parents[1]
NAME = "broadcasterd"
MANUAL = "config/share/man/man1/broadcasterd.1"
MANUAL_OF_THE_FILE = "config/share/man/man5/broadcasterd.toml.5"
COMPLETIONS = {
    "bash": ("config/share/bash-completion/completions/broadcasterd", BashComplete),
    "zsh": ("config/share/zsh/site-functions/_broadcasterd", ZshComplete),
    "fish": ("config/share/fish/vendor_completions.d/broadcasterd.fish", FishComplete),
}
REFERENCE = "docs/configuration.md"

GROUPED = 10_000
"""Numbers from here on are written in groups of digits, as the file has them."""

INTRODUCTION = """\
# Configuration

Every setting, as the source has it, from which `make reference` writes this page.
[broadcasterd.toml](../config/broadcasterd.toml) is a file to begin with, and
`broadcasterd check-config FILE` says whether one is good.

A variable of the environment wins over the file: `BROADCASTERD_SERVER__PORT` is `port` of
`[server]`. Lists are comma-separated there. Durations may have units (`"10m"`, `"1h30m"`,
`"500ms"`), and so may sizes (`"64KiB"`, `"1GiB"`).
"""

AFTER_THE_COMMANDS = r"""
.SH ENVIRONMENT
.TP
.B BROADCASTERD_CONFIG
The configuration file, where \fB\-\-config\fR names none.
.TP
.BR BROADCASTERD_URL ", " BROADCASTERD_TOKEN
Where the daemon is, and the token that is sent to it, where no option says so.
.TP
.BI BROADCASTERD_ SECTION __ KEY
A setting, before that of the file; see
.BR broadcasterd.toml (5).
.TP
.B USE_LEGACY_BROADCASTER
.B true
switches memory management off.
.SH FILES
.TP
.I /etc/broadcasterd/broadcasterd.toml
The configuration of the service.
.TP
.I /etc/broadcasterd/secret
The secret that its tokens are signed with, for root alone.
.TP
.I /usr/share/doc/broadcasterd
The documentation. Below /usr/local, where it was installed there.
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
The daemon stops. After SIGTERM its streams are handed over, where there is a successor; after
SIGINT they are told that it stops for good.
.TP
.B SIGHUP
It reads its configuration anew, and closes no stream.
.TP
.B SIGUSR1
It opens the file of its log anew.
.SH EXIT STATUS
.TP
.B 0
success
.TP
.B 1
anything that is not below
.TP
.B 2
bad usage, or a bad configuration
.SH SEE ALSO
.BR broadcasterd.toml (5),
.BR systemctl (1),
.BR journalctl (1)
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the configuration, as a reader of its reference wants it.

    Attributes:
        key: as the file has it.
        kind: what its value can be, in words, with unit and range.
        default: in words, or in TOML between backticks.
        meaning: a sentence without its period.

    """

    key: str
    kind: str
    default: str
    meaning: str


def sections() -> Iterator[tuple[str, str, list[Setting]]]:
    """Yield each table of the file: its name, what it is for, its keys."""
    for field in msgspec.structs.fields(Config):
        yield field.name, *_section(type(getattr(Config(), field.name)))
        if field.name == "alerts":
            yield "alerts.rules", *_section(AlertRule)


def _section(section: type[Section]) -> tuple[str, list[Setting]]:
    text, _, attributes = (inspect.getdoc(section) or "").partition("\n\nAttributes:\n")
    meanings = dict(re.findall(r"^ {4}(\w+): ((?:.|\n {8})+)\.$", attributes, re.MULTILINE))
    settings = [
        Setting(
            field.encode_name,
            words_for(field.type) or ("tables" if field.name == "rules" else "a string"),
            _default(field.default),
            re.sub(r"\s+", " ", meanings[field.name]),
        )
        for field in msgspec.structs.fields(section)
    ]
    return text.replace("``", "`"), settings


def _default(value: object) -> str:
    if value is msgspec.NODEFAULT:
        return "none: it is required"
    if value is None:
        return "none"
    if value is SHIPPED_RULES:
        return f"{len(value)} rules"
    if isinstance(value, int | float) and value >= GROUPED:
        return f"`{value:_}`"
    return f"`{json.dumps(value)}`"


def _header(name: str) -> str:
    """Return a table's header as the file has it; there may be many of a rule's."""
    return f"[[{name}]]" if "." in name else f"[{name}]"


# --- Markdown --------------------------------------------------------------------------------


def reference() -> str:
    """Return the reference of the configuration."""
    return "\n".join([INTRODUCTION, *_tables()])


def _tables() -> Iterator[str]:
    for name, text, settings in sections():
        yield f"## `{_header(name)}`\n\n{text}\n"
        yield "| key | value | default | what it is |\n| --- | --- | --- | --- |"
        for each in settings:
            words = [text.replace("*", r"\*") for text in (each.kind, _sentence(each.meaning))]
            yield f"| `{each.key}` | {words[0]} | {each.default} | {words[1]} |"
        yield ""


def _sentence(text: str) -> str:
    first = text.split(maxsplit=1)[0]
    return text if first[:-1].isupper() or "_" in first else text[0].upper() + text[1:]


# --- roff ------------------------------------------------------------------------------------


def _roff(text: str) -> str:
    """Return a text as it is to be printed, with what is in backticks in bold."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    bold = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", re.sub(r"\s+", " ", escaped).strip())
    return re.sub(r"^(?=[.'])", r"\\&", bold)


def _paragraphs(text: str) -> str:
    return "\n.PP\n".join(map(_roff, text.strip().split("\n\n")))


def manual() -> str:
    """Return broadcasterd(1)."""
    context = click.Context(commands, info_name=NAME, **commands.context_settings)
    about = _roff(inspect.cleandoc(commands.help or "")).rstrip(".")
    lines = [
        f'.TH {NAME.upper()} 1 "" "{NAME}" "User Commands"',
        f".SH NAME\n{NAME} \\- {about[0].lower()}{about[1:]}",
        f".SH SYNOPSIS\n.B {NAME}\n.I COMMAND\n[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        "Publishers POST events to a session, and each of its subscribers gets every event once",
        "and in order, or is told which are missing. The daemon is one process without a database,",
        "and its memory is bounded.",
        ".SH OPTIONS",
        *_options(context),
        ".SH COMMANDS",
    ]
    for name in commands.list_commands(context):
        command = commands.commands[name]
        inner = click.Context(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(inner))
        lines += [
            f".SS {_roff(f'{name} {usage}')}",
            _paragraphs(inspect.cleandoc(command.help or "")),
            *_options(inner),
        ]
    return "\n".join(lines) + AFTER_THE_COMMANDS


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        is_said_above = context.parent is not None and parameter.name == "help"
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option) and not is_said_above:
            option, text = record
            yield f".TP\n.B {_roff(option)}\n{_roff(text)}"


def manual_of_the_file() -> str:
    """Return broadcasterd.toml(5)."""
    lines = [
        f'.TH {NAME.upper()}.TOML 5 "" "{NAME}" "File Formats"',
        f".SH NAME\n{NAME}.toml \\- the configuration of {NAME}",
        ".SH SYNOPSIS\n.I /etc/broadcasterd/broadcasterd.toml",
        ".SH DESCRIPTION",
        "A file in TOML. Each key has a default, and none has to be there. A variable of the",
        "environment wins over the file: \\fBBROADCASTERD_SERVER__PORT\\fR is \\fBport\\fR of",
        "\\fB[server]\\fR; lists are comma\\-separated there. Durations may have units",
        '("10m", "1h30m", "500ms"), and so may sizes ("64KiB", "1GiB").',
        ".PP",
        f"\\fB{NAME} check\\-config\\fR says whether a file is good, and \\fBsystemctl reload\\fR",
        "has the daemon follow a change without closing a stream.",
    ]
    for name, text, settings in sections():
        lines.append(f".SH {_header(name)}\n{_paragraphs(text)}")
        for each in settings:
            lines.append(f".TP\n.B {each.key}\n{_roff(f'{each.kind}; default: {each.default}.')}")
            lines.append(f".br\n{_roff(_sentence(each.meaning))}.")
            if f"{name}.{each.key}" in ENVIRONMENT_ONLY:
                lines.append(f"The variable is \\fB{variable_of(name, each.key)}\\fR.")
    return "\n".join(lines) + f"\n.SH SEE ALSO\n.BR {NAME} (1)\n"


# --- completions -----------------------------------------------------------------------------


def completion(shell: str) -> str:
    """Return what a shell reads to complete the command, which it asks for the candidates."""
    script = COMPLETIONS[shell][1](commands, {}, NAME, f"_{NAME.upper()}_COMPLETE")
    return f"{(script.source_template % script.source_vars()).strip()}\n"


def files() -> dict[PurePosixPath, str]:
    """Return all files by their places in the checkout."""
    made = {
        REFERENCE: reference(),
        MANUAL: manual(),
        MANUAL_OF_THE_FILE: manual_of_the_file(),
        **{place: completion(shell) for shell, (place, _) in COMPLETIONS.items()},
    }
    return {PurePosixPath(place): text for place, text in made.items()}


def main() -> None:
    """Write them."""
    for place, text in files().items():
        path = ROOT / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
