"""Suites of a few lines, for a pytest of their own that has no more plugins than they need.

Importing all that are installed takes longer than all else that such a run does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.tools import ROOT

BARE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""A variable that has a pytest load those plugins alone that it is told of."""


def run_suite(
    directory: Path, suite: str, *options: str, plugins: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run a suite of one file, in a directory, with these plugins."""
    (directory / "test_suite.py").write_text(suite)
    named = [option for plugin in plugins for option in ("-p", plugin)]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *named]
    return subprocess.run(
        [*command, f"--rootdir={directory}", *options, str(directory)],
        cwd=ROOT,
        env={**os.environ, **BARE, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
