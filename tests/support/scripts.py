"""Scripts of ``.ci``, which are no part of a package: loaded by their place."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from tests.support.tools import ROOT


@contextmanager
def loaded(name: str) -> Iterator[ModuleType]:
    """Load a script, ``hooks/find_secrets.py`` for example, for as long as the context lasts."""
    script = ROOT / ".ci" / name
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[script.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[script.stem]
