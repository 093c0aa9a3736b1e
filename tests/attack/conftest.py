"""Fixtures for attacks: each is one bounded scenario on a daemon of its own, and its end."""

from __future__ import annotations

import pytest

from tests.support.certificate import Certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make a certificate for 127.0.0.1."""
    return Certificate.make(tmp_path_factory.mktemp("certificate"))
