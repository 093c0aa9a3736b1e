"""Draws the benchmark's figures: `plots.py FIGURES.json DIRECTORY`; prints the files that it wrote.

It runs in the environment of .ci/requirements-bench.lock.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib import pyplot as plt

COSTS = {
    "post_us": "POST",
    "post_sessions_us": "POST, many\nsessions",
    "array_event_us": "event of\nan array",
    "ndjson_event_us": "line of\nNDJSON",
    "connect_us": "connect,\nPOST, close",
    "subscribe_us": "subscribe",
}
DOTS_PER_INCH = 120

Medians = dict[str, dict[str, float]]


def shown(value: float) -> str:
    """Return a number as a bar's label; nothing where nothing was measured."""
    return (f"{value:,.0f}" if value >= 10 else f"{value:.1f}") if value else ""


def costs(axes: Any, found: Medians) -> None:  # noqa: ANN401 - matplotlib has no types for us
    """Draw what a publisher and a subscriber cost, in groups."""
    names = [name for name in COSTS if any(name in figures for figures in found.values())]
    width = 0.8 / max(len(found), 1)
    for turn, (label, figures) in enumerate(found.items()):
        places = [place + turn * width - 0.4 + width / 2 for place in range(len(names))]
        bars = axes.bar(places, [figures.get(name, 0) for name in names], width, label=label)
        axes.bar_label(bars, fmt=shown, fontsize=6)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), [COSTS[name] for name in names])
    axes.set_ylabel("µs CPU")


def deliveries(axes: Any, found: Medians) -> None:  # noqa: ANN401
    """Draw what a delivery costs by the number of subscribers."""
    counts: set[int] = set()
    for label, figures in found.items():
        points = sorted(
            (int(match[1]), value)
            for name, value in figures.items()
            if (match := re.fullmatch(r"deliver_(\d+)_us", name))
        )
        counts |= {count for count, _ in points}
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set_xscale("log")
    axes.set_xticks(sorted(counts), [f"{count:,}" for count in sorted(counts)])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("subscribers of one session")
    axes.set_ylabel("µs CPU per delivery")


def memory(axes: Any, found: Medians) -> None:  # noqa: ANN401
    """Draw what an idle subscriber takes."""
    held = {
        label: figures["subscriber_kb"]
        for label, figures in found.items()
        if "subscriber_kb" in figures
    }
    for label, value in held.items():
        axes.bar_label(axes.bar(label, value, label=label), fmt="%.1f")
    axes.set_ylabel("KB per idle subscriber")


def main() -> Iterator[Path]:
    """Draw all for which there are figures."""
    document = json.loads(Path(sys.argv[1]).read_text())
    found: Medians = {
        document["labels"][kind]: {name: median(values) for name, values in figures.items()}
        for kind, figures in document["measured"].items()
    }
    for draw in (costs, deliveries, memory):
        figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
        draw(axes, found)
        if axes.has_data():
            figure.legend(loc="outside upper center", ncols=4, fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            path = Path(sys.argv[2]) / f"performance-{draw.__name__}.png"
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
            yield path
        plt.close(figure)


if __name__ == "__main__":
    for written in main():
        sys.stdout.write(f"{written}\n")
