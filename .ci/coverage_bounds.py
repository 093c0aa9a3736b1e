"""Say how much of each package the tests reach, and fail where that is too little.

Reads what `make coverage` has left in build/coverage.json. What is covered are statements, and the
ways on from each branch, together. What decides has to be covered better than what does: that talks
to a machine, of which the tests have but one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "build/coverage.json"
SOURCES = "daemon/broadcasterd/"

BOUNDS = {"core": 95.0, "memory": 95.0, "access": 95.0, "broadcast": 95.0}
"""Percent, by package."""

ALL = 90.0
"""Percent of all together."""


@dataclass(slots=True)
class Share:
    """What is covered of a package."""

    covered: int = 0
    reachable: int = 0

    def add(self, summary: Mapping[str, int]) -> None:
        """Count a file."""
        self.covered += summary["covered_lines"] + summary["covered_branches"]
        self.reachable += summary["num_statements"] + summary["num_branches"]

    @property
    def percent(self) -> float:
        """The share."""
        return 100 * self.covered / self.reachable if self.reachable else 100.0


def shares(report: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]) -> dict[str, Share]:
    """Return what is covered, by package; files outside of one are in ``.``, and all in ``all``."""
    found = {"all": Share()}
    for path, file in report["files"].items():
        package, inside, _ = path.partition(SOURCES)[2].partition("/")
        for name in ("all", package if inside else "."):
            found.setdefault(name, Share()).add(file["summary"])
    return found


def lines(found: Mapping[str, Share]) -> Iterator[str]:
    """Yield what a person reads."""
    for name, share in sorted(found.items(), key=lambda item: (item[0] == "all", item[0])):
        bound = _bound(name)
        wanted = f" of {bound:.0f}" if bound else ""
        note = ": too little" if share.percent < bound else ""
        yield f"{name:<12} {share.percent:6.2f} %{wanted}{note}"


def is_enough(found: Mapping[str, Share]) -> bool:
    """Whether no package falls below its bound, nor all together."""
    return all(share.percent >= _bound(name) for name, share in found.items())


def _bound(name: str) -> float:
    return ALL if name == "all" else BOUNDS.get(name, 0.0)


if __name__ == "__main__":
    measured = shares(json.loads(REPORT.read_text()))
    print("\n".join(lines(measured)))
    sys.exit(0 if is_enough(measured) else 1)
