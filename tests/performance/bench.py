"""Measure what publishes, subscribers and deliveries cost, beside other servers.

The servers take the same load in turn, on one core; the load comes from another. The output is
figures with the aims beside them, never a verdict: machines differ, and so does what else runs on
them. The exit status is 1 only when this daemon broke; a lost, doubled or altered event is that.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any

# Run as a file, so that it needs no more than a path; the modules beside it are named as the tests
# name theirs.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.performance import page
from tests.performance.cores import LOAD_CORE, SERVER_CORE
from tests.performance.figures import OURS, added, medians, ratios
from tests.performance.posts import generator
from tests.performance.processes import ROOT, Broken
from tests.performance.scenarios import SCENARIOS
from tests.performance.servers import BENCH, BENCH_PYTHON, Kind, compared
from tests.performance.size import FULL, QUICK, Size

FULL_S = 500.0  # nothing is begun later
QUICK_S = 75.0
REASON_SHOWN = 300  # characters
OUTPUT = ROOT / "build" / "bench"


@dataclass(slots=True)
class Findings:
    """What was measured so far, by server and figure, and what was not, and why."""

    measured: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    no_time_for: list[str] = field(default_factory=list)

    def add(self, kind: str, figures: Mapping[str, float]) -> None:
        """Add those of one round."""
        for name, value in figures.items():
            self.measured.setdefault(kind, {}).setdefault(name, []).append(value)


def measure(kinds: Mapping[str, Kind], scenarios: list[str], size: Size, until: float) -> Findings:
    """Run the scenarios round by round, the servers in turn; begin none after ``until``."""
    findings, began = Findings(), time.monotonic()
    findings.left_out += [
        f"{kind.label}: {kind.missing}" for kind in kinds.values() if kind.missing
    ]
    for turn in range(size.rounds):
        for name in scenarios:
            scenario = SCENARIOS[name]
            if turn > 0 and scenario.is_heavy:
                continue
            for key, kind in kinds.items():
                what = f"{name}, round {turn + 1}: {kind.label}"
                if kind.missing or (kind.only is not None and name not in kind.only):
                    continue
                if time.monotonic() > until:
                    findings.no_time_for.append(what)
                    continue
                print(f"{time.monotonic() - began:5.0f} s  {what}", file=sys.stderr)
                with tempfile.TemporaryDirectory() as directory:
                    try:
                        for figures in scenario.run(kind, size, Path(directory)):
                            findings.add(key, figures)
                    except Broken as reason:
                        failures = findings.broken if key == OURS else findings.left_out
                        failures.append(f"{what}: {str(reason)[:REASON_SHOWN]}")
    return findings


def machine() -> str:
    """Name what the figures depend on."""
    facts = {
        "CPUs": os.cpu_count(),
        "server on core": SERVER_CORE,
        "load on core": LOAD_CORE,
        "load average": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "Trio": version("trio"),
        "posts by": generator(),
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def report(findings: Findings, labels: Mapping[str, str]) -> str:
    """Return the tables, in Markdown, for a reader."""
    about = f"{time.strftime('%Y-%m-%d')}; {machine()}."
    parts = [about, *(table(findings.measured, labels) for table in (medians, ratios, added))]
    parts += [f"Left out: {line}." for line in findings.left_out]
    if findings.no_time_for:
        each = dict.fromkeys(what.partition(":")[0] for what in findings.no_time_for)
        parts.append(f"No time was left for all of {'; '.join(each)}.")
    return "\n\n".join(filter(None, parts))


def draw(document: dict[str, Any]) -> list[Path]:
    """Write the figures as JSON, and plots of them where there is what draws them."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    written = OUTPUT / "figures.json"
    written.write_text(json.dumps(document, indent=2))
    if not BENCH.exists():
        print("no plots: .venv-bench is missing", file=sys.stderr)
        return []
    program = Path(__file__).with_name("plots.py")
    drawn = subprocess.run(
        [BENCH_PYTHON, program, written, OUTPUT], check=True, stdout=subprocess.PIPE, text=True
    )
    return [Path(line) for line in drawn.stdout.splitlines()]


def listed(text: str) -> list[str]:
    """Take an argument's list apart."""
    return [name for name in text.split(",") if name]


def main() -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, and one round")
    parser.add_argument("--only", type=listed, default=[], help=f"of {','.join(SCENARIOS)}")
    parser.add_argument("--servers", type=listed, default=[], help="only these, by name")
    parser.add_argument("--against", help="also another revision, or a directory with one")
    parser.add_argument("--page", action="store_true", help="put all into docs/performance.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(SCENARIOS):
        parser.error(f"{', '.join(unknown)}: of {', '.join(SCENARIOS)}")
    size = QUICK if arguments.quick else FULL
    until = time.monotonic() + (QUICK_S if arguments.quick else FULL_S)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what was started, too
    hard = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (hard, hard))

    with tempfile.TemporaryDirectory() as directory:
        kinds = compared(Path(directory), arguments.against)
        if unknown := set(arguments.servers) - set(kinds):
            parser.error(f"{', '.join(unknown)}: of {', '.join(kinds)}")
        chosen = {key: kinds[key] for key in arguments.servers or kinds}
        scenarios = [name for name in SCENARIOS if name in (arguments.only or SCENARIOS)]
        findings = measure(chosen, scenarios, size, until)

    labels = {key: kind.label for key, kind in kinds.items()}
    text = report(findings, labels)
    print(text)
    plots = draw({"labels": labels, "measured": findings.measured})
    (OUTPUT / "table.md").write_text(f"{text}\n")
    if arguments.page:
        page.put(text, plots)
    for line in findings.broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if findings.broken else 0


if __name__ == "__main__":
    sys.exit(main())
