"""Fixtures for tests that need the whole daemon."""

from __future__ import annotations

import gc
import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings

from broadcasterd.observe.imports import import_structlog
from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.forkserver import ForkServer

# As the daemon has it. With rich, each exception that a test has the daemon log takes a second.
import_structlog()
import structlog  # noqa: E402 (now, and nothing else before)

# How long an example takes says nothing: the machine may be busy. `make test-fast` tries fewer,
# `make flake-check` many. `make mutants` tries always the same, and one that fails has to be no
# simpler than it is.
settings.register_profile(
    "whole", deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fast", settings.get_profile("whole"), max_examples=10)
settings.register_profile("deep", settings.get_profile("whole"), max_examples=200)
settings.register_profile(
    "mutants",
    settings.get_profile("whole"),
    max_examples=50,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("whole")

pytest_plugins = [
    "tests.support.measured",
    "tests.support.scheduling",
    "tests.support.summary",
    "tests.support.timelimit",
]


# All that is made until the tests are there stays: to look through it again and again for garbage
# would take a sixth of that time.
gc.disable()


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what was imported: some tests have it look at all objects."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Start what starts processes of ``broadcasterd`` quickly."""
    server = ForkServer.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def launch(fork_server: ForkServer) -> Launch:
    """Return what starts a daemon's process: here, what is quickest."""
    return fork_server.fork


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Iterator[StartDaemon]:
    """Start as many daemons as a test likes, and see each of them stop cleanly after it."""
    with ExitStack() as running:

        def start(
            *, environment: Mapping[str, str] | None = None, **sections: Mapping[str, object]
        ) -> Daemon:
            directory = tmp_path_factory.mktemp("daemon")
            daemon = Daemon.start(directory, launch, environment=environment, **sections)
            running.callback(daemon.stop_cleanly)
            return daemon

        yield start


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    """Start a daemon with the defaults of tests/support/daemon.py."""
    return start_daemon()


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Leave no trace in what is configured for the whole process."""
    before = structlog.get_config()
    loggers = [logging.getLogger(name) for name in ("", "broadcasterd")]
    levels = [logger.level for logger in loggers]
    yield
    structlog.configure(**before)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let each HTTP client trust one authority: to read all of the world's takes it 30 ms.

    Also where ``SSL_CERT_FILE`` names them all. What else is started here goes by that variable.
    """
    authority = Certificate.make(tmp_path_factory.mktemp("authority")).chain
    create = httpx.create_ssl_context

    def context(
        verify: ssl.SSLContext | bool,  # noqa: FBT001 (as httpx calls it)
        **_: object,
    ) -> ssl.SSLContext:
        return create(verify, trust_env=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("certifi.where", lambda: str(authority))
        patch.setattr("httpx._transports.default.create_ssl_context", context)
        yield


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make a certificate for 127.0.0.1."""
    return Certificate.make(tmp_path_factory.mktemp("certificate"))
