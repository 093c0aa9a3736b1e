"""Start one of the servers that the benchmark compares: `server_under_test.py KIND PORT`.

It prints `READY <port>` once the server listens, and serves until it is terminated.
Each kind imports only what it needs: an import costs memory, and one broken server must not keep
the others from being measured.
"""

# ruff: noqa: PLC0415 - for that reason

import sys
from collections.abc import Callable
from functools import partial
from resource import RLIMIT_NOFILE, getrlimit, setrlimit


def ready(port: int) -> None:
    """Tell the benchmark that the server listens."""
    sys.stdout.write(f"READY {port}\n")
    sys.stdout.flush()


def bare(port: int) -> None:
    """Run the floor."""
    from tests.performance.bare_server import BareServer

    BareServer(port).run(ready)


def plain(port: int) -> None:
    """Run the naive server."""
    import trio

    from tests.performance.plain_server import serve

    trio.run(partial(serve, port, on_ready=ready))


def daemon(port: int, *, takeover: bool) -> None:
    """Run broadcasterd itself, with its defaults but for the authentication."""
    from broadcasterd import daemon
    from broadcasterd.config import Auth, Config, Server

    config = Config(server=Server(port=port), auth=Auth(mode="none"))
    daemon.main(
        config,
        on_ready=lambda urls: ready(int(urls[0].rpartition(":")[2])),
        takeover=takeover,
    )


KINDS: dict[str, Callable[[int], None]] = {
    "bare": bare,
    "plain": plain,
    "ordinary": partial(daemon, takeover=False),
    "taken-over": partial(daemon, takeover=True),
}


def main() -> None:
    """Raise the limit of open files and run the server."""
    hard = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (hard, hard))
    kind, port = sys.argv[1:]
    KINDS[kind](int(port))


if __name__ == "__main__":
    main()
