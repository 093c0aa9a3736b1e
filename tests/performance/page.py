"""Puts what the benchmark found into docs/performance.md, between two marks."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.performance.processes import ROOT

PAGE = ROOT / "docs" / "performance.md"
IMAGES = PAGE.parent / "images"
BEGIN = "<!-- what `make bench PAGE=1` found -->\n"
END = "<!-- the end of it -->\n"


def put(text: str, plots: Sequence[Path]) -> None:
    """Replace what stands between the marks, and the plots in docs/images."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no marks {BEGIN!r} and {END!r}")
    IMAGES.mkdir(exist_ok=True)
    for plot in plots:
        shutil.copy(plot, IMAGES)
    shown = [f"![{plot.stem.replace('-', ' ')}](images/{plot.name})" for plot in plots]
    found = "\n\n".join([text, *shown])
    PAGE.write_text(f"{before}{begin}\n{found}\n\n{end}{after}")
