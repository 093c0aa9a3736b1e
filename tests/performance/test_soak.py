"""The soak runs, and its load is one: `make soak` is for minutes, and for other seeds."""

from __future__ import annotations

from pathlib import Path

from tests.performance.soak import soak

SECONDS = 5.0
SEED = 1


def test_a_short_soak_finds_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    figures = soak(tmp_path, seconds=SECONDS, seed=SEED, report=lines.append)

    assert lines[-1].startswith("ended well")
    assert figures.quiet == 1
    assert figures.published > 0
    assert figures.delivered > figures.published
    assert figures.resumed > 0
    assert figures.cut > 0
