"""The command line; `make` has these commands as targets: docs/quality.md.

Exit status 0: done, or accepted. 1: refused, or it could not be done. 2: bad usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from quality.comparison import compare, table
from quality.measuring import PARTS, measure
from quality.processes import QualityError, raise_interruptions
from quality.refs import to_compare_with
from quality.report import Report, append, read, write
from quality.trees import CHECKOUT, Tree, worktree
from quality.wording import text

BUILD = CHECKOUT / "build"
HISTORY = BUILD / "quality-history.jsonl"
MIGRATION = BUILD / "migration"


def main() -> int:
    """Do what is asked for; return the exit status."""
    asked = _parser().parse_args()
    # `make` has Python find this package and the tests' helpers; no other program is to.
    os.environ.pop("PYTHONPATH", None)
    raise_interruptions()
    try:
        return _do(asked)
    except (QualityError, OSError) as error:
        print(f"quality: FAILED: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("quality: interrupted", file=sys.stderr)
    return 1


def _do(asked: argparse.Namespace) -> int:
    match asked.command:
        case "report":
            tree = Tree(CHECKOUT, Path(sys.executable), BUILD / "quality")
            report = measure(tree, asked.tests, asked.only or PARTS)
            write(report, BUILD / "quality.json")
            append(report, HISTORY)
            print(text(report))
        case "compare":
            baseline, candidate = (_stored(name) for name in ("baseline", "candidate"))
            rows = compare(baseline, candidate, asked.only)
            print(table(baseline, candidate, rows))
            return 1 if any(row.refused for row in rows) else 0
        case name:
            _measure_commit(asked, name)
    return 0


def _measure_commit(asked: argparse.Namespace, name: str) -> None:
    """Measure a commit, and keep the report for the comparison."""
    current = "HEAD" if name == "candidate" else ""
    ref = asked.ref or current or to_compare_with(CHECKOUT, asked.library)
    with worktree(ref, MIGRATION / name) as tree:
        report = measure(tree, asked.tests, asked.only or PARTS)
    write(report, MIGRATION / f"{name}.json")
    print(text(report))


def _stored(name: str) -> Report:
    target = {"baseline": "migration-baseline", "candidate": "migration-validate"}[name]
    path = MIGRATION / f"{name}.json"
    try:
        return read(path)
    except FileNotFoundError as error:
        raise QualityError(f"there is no {name}: `make {target}` measures one") from error
    except msgspec.DecodeError as error:
        raise QualityError(f"{path} is of no use: `make {target}` makes it anew") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quality", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("report", "measure this checkout"),
        ("baseline", "measure the commit to compare with"),
        ("candidate", "measure the commit that may take over"),
        ("compare", "put both side by side, and judge"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--only", type=_parts, help=f"of {','.join(PARTS)}")
        if name != "compare":
            command.add_argument("--tests", default="all", help="all, fast or a path")
        if name in {"baseline", "candidate"}:
            command.add_argument("--ref", help="a commit, a branch or a tag")
            command.add_argument("--library", type=Path, help="where the releases are")
    return parser


def _parts(named: str) -> list[str] | None:
    parts = [part for part in named.split(",") if part]
    if unknown := sorted(set(parts) - set(PARTS)):
        raise argparse.ArgumentTypeError(f"no part is called {unknown[0]}; of {','.join(PARTS)}")
    return parts or None


if __name__ == "__main__":
    sys.exit(main())
