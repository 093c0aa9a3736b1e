"""`broadcasterd stats`, `sessions` and `top` against a real daemon, and in a real terminal."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from broadcasterd import cli
from broadcasterd.client import figures
from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, StartDaemon
from tests.support.terminal import ALTERNATE_OFF, ALTERNATE_ON, Terminal, terminal
from tests.support.tokens import claims, jwt_mode, sign

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BROADCASTERD_URL", "BROADCASTERD_TOKEN", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as exited:
        cli.main(argv)
    assert isinstance(exited.value.code, int)
    return exited.value.code


def publish(daemon: Daemon, *sizes: int) -> None:
    """Publish as many events to the sessions s-0, s-1 … as told."""
    for number, count in enumerate(sizes):
        answer = httpx.post(daemon.session(f"s-{number}"), json=[{"data": "x"}] * count)
        answer.raise_for_status()


# --- stats -----------------------------------------------------------------------------------


def test_stats_are_text_for_people(daemon: Daemon, capsys: Output) -> None:
    publish(daemon, 2, 3)

    assert 0 == run("stats", "--url", daemon.url)

    out, aside = capsys.readouterr()
    assert "" == aside
    assert "\x1b" not in out
    assert re.match(r"broadcasterd \S+ is healthy, up \d+ s  http://127", out)
    assert re.search(r"^alerts   none firing$", out, re.MULTILINE)
    assert re.search(r"^memory   \S+ [\d.]+ of 500 MB$", out, re.MULTILINE)
    assert re.search(r"^breaker  closed  warning 200 MB", out, re.MULTILINE)
    assert re.search(r"^open     2 sessions  0 streams  \d connections?", out, re.MULTILINE)
    assert re.search(r"^s-1 +0 +- +3 ", out, re.MULTILINE)


def test_stats_are_the_daemons_own_json_for_programs(daemon: Daemon, capsys: Output) -> None:
    publish(daemon, 2)

    assert 0 == run("stats", "--json", "--url", daemon.url)

    said = json.loads(capsys.readouterr().out)
    assert 2 == said["counters"]["events"]
    assert httpx.get(f"{daemon.url}/stats").json().keys() == said.keys()


# --- sessions --------------------------------------------------------------------------------


def listed(capsys: Output, *options: str) -> list[str]:
    assert 0 == run("sessions", "--json", *options)
    return [json.loads(line)["session"] for line in capsys.readouterr().out.splitlines()]


def test_sessions_are_a_table(daemon: Daemon, capsys: Output) -> None:
    publish(daemon, 2)

    assert 0 == run("sessions", "--url", daemon.url)

    head, row = capsys.readouterr().out.splitlines()
    assert ["SESSION", "SUBSCRIBERS", "EVENTS", "BYTES", "AGE", "IDLE", "LAST ID"] == re.split(
        r"  +", head.strip()
    )
    assert re.fullmatch(r"s-0 +0 +2 +\d+ B +\d+ s +\d+ s +[0-9a-f]{8}-2 *", row)


def test_a_long_name_is_not_cut_where_a_program_reads_it(daemon: Daemon, capsys: Output) -> None:
    name = "n" * 128
    httpx.post(daemon.session(name), json={"data": ""}).raise_for_status()

    run("sessions", "--url", daemon.url)

    assert f"\n{name} " in capsys.readouterr().out


def test_sessions_of_all_pages_are_filtered_sorted_and_cut(
    daemon: Daemon, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "PAGE", 2)
    publish(daemon, 1, 3, 2, 5, 4)
    url = ("--url", daemon.url)

    assert ["s-0", "s-1", "s-2", "s-3", "s-4"] == listed(capsys, *url)
    assert ["s-3", "s-4", "s-1", "s-2", "s-0"] == listed(capsys, *url, "--sort", "events")
    assert ["s-3", "s-4"] == listed(capsys, *url, "--sort", "bytes", "--limit", "2")
    assert ["s-1"] == listed(capsys, *url, "--filter", "*1")
    assert [] == listed(capsys, *url, "--filter", "nothing")


# --- what goes wrong -------------------------------------------------------------------------

each_command = pytest.mark.parametrize("command", ["stats", "sessions", "top"])


@each_command
def test_a_daemon_that_is_not_there_is_told(command: str, daemon: Daemon, capsys: Output) -> None:
    daemon.stop()

    assert 1 == run(command, "--url", daemon.url)

    told = capsys.readouterr().err
    assert re.fullmatch(rf"Error: {daemon.url}/\S+: Connection refused\n", told)


@each_command
def test_who_is_no_admin_is_told(
    command: str, start_daemon: StartDaemon, tmp_path: Path, capsys: Output
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path))

    assert 1 == run(command, "--url", daemon.url)
    assert capsys.readouterr().err.startswith(f"Error: 401 Unauthorized from {daemon.url}/")

    token = sign(claims(subscribe=("*",)))
    assert 1 == run(command, "--url", daemon.url, "--token", token)
    assert capsys.readouterr().err.startswith(f"Error: 403 Forbidden from {daemon.url}/")

    assert 0 == run(command, "--url", daemon.url, "--token", sign(claims(admin=True)))


@each_command
def test_https_is_not_spoken_on_a_plain_port(command: str, daemon: Daemon, capsys: Output) -> None:
    assert 1 == run(command, "--url", daemon.url.replace("http:", "https:"))
    assert capsys.readouterr().err.endswith(": no TLS is spoken there (is it http:// ?)\n")


def test_a_certificate_that_nobody_vouches_for_is_told(
    start_daemon: StartDaemon, certificate: Certificate, capsys: Output
) -> None:
    files = {"tls_certificate": str(certificate.chain), "tls_key": str(certificate.key)}
    secured = start_daemon(server=files)

    assert 1 == run("stats", "--url", secured.url.replace("http:", "https:"))
    assert "certificate verify failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["top", "--interval", "0"],
        ["top", "--interval", "often"],
        ["sessions", "--sort", "colour"],
        ["sessions", "--limit", "0"],
        ["stats", "--url", "example.org"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_status_2(argv: list[str], capsys: Output) -> None:
    assert 2 == run(*argv)
    assert "Usage: broadcasterd" in capsys.readouterr().err


# --- top -------------------------------------------------------------------------------------


def test_top_prints_the_figures_once_where_there_is_no_terminal(
    daemon: Daemon, capsys: Output
) -> None:
    assert 0 == run("top", "--url", daemon.url)

    out = capsys.readouterr().out
    assert out.startswith("broadcasterd ")
    assert "\x1b" not in out


@contextmanager
def top(daemon: Daemon, *options: str, columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    """Run `top` in a terminal, which has its first figures."""
    arguments = ("top", "--url", daemon.url, "--interval", "200ms", *options)
    with terminal(*arguments, columns=columns, lines=lines) as opened:
        opened.until_seen("connections")
        yield opened


def is_as_before(terminal: Terminal) -> bool:
    """Whether the screen of before is back, with its cursor, and lines are edited by the kernel."""
    _, _, after = terminal.written.rpartition(ALTERNATE_ON)
    return (
        ALTERNATE_OFF in after
        and after.rfind(b"\x1b[?25h") > after.rfind(b"\x1b[?25l")
        and terminal.settings_at_start == terminal.settings()
    )


def fits(terminal: Terminal, last: str) -> bool:
    """Whether all is to be seen, from the first line to one that begins like the last."""
    first, *others = terminal.lines
    return first.endswith("q quits") and any(line.startswith(last) for line in others)


@pytest.mark.slow
def test_top_is_live_in_a_terminal_of_any_size(daemon: Daemon) -> None:
    with terminal("top", "--url", daemon.url, "--interval", "200ms") as opened:
        opened.until_seen("open 0 sessions 0 streams")
        publish(daemon, 1, 2)
        opened.until_seen("open 2 sessions")
        opened.until_seen("BUSIEST")

        assert opened.lines[0].startswith("broadcasterd ")
        assert opened.lines[0].endswith("q quits")
        assert any(line.endswith("p50    p95    p99    max") for line in opened.lines)
        assert not any("…" in line for line in opened.lines)

        opened.resize(40, 24)
        opened.until(lambda: fits(opened, "s-1 "))

        assert "milliseconds    p50    p95    p99    max" in opened.lines
        assert "a second        10s       1m      10m" in opened.lines

        opened.resize(120, 50)
        opened.until_seen("GET /stats ")
        opened.type("q")

        assert 0 == opened.until_over()
        assert is_as_before(opened)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_top_and_leaves_the_terminal_right(
    number: signal.Signals, status: int, daemon: Daemon
) -> None:
    with top(daemon) as opened:
        if number == signal.SIGINT:
            opened.type("\x03")  # ctrl-C
        else:
            opened.process.send_signal(number)

        assert status == opened.until_over()
        assert is_as_before(opened)
        assert b"Traceback" not in opened.written


@pytest.mark.slow
def test_ctrl_z_gives_the_terminal_back_until_top_goes_on(daemon: Daemon) -> None:
    with top(daemon) as opened:
        process = psutil.Process(opened.process.pid)
        opened.type("\x1a")
        opened.until(lambda: process.status() == psutil.STATUS_STOPPED)
        opened.look()

        assert is_as_before(opened)

        opened.process.send_signal(signal.SIGCONT)
        opened.until(lambda: not is_as_before(opened))
        opened.until_seen("connections")
        opened.type("Q")

        assert 0 == opened.until_over()
        assert is_as_before(opened)


@pytest.mark.slow
def test_top_says_since_when_the_daemon_is_away_and_goes_on_by_itself(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon()
    with top(daemon) as opened:
        daemon.stop()
        opened.until_seen("DISCONNECTED since ")
        shown = opened.words

        assert re.search(r"DISCONNECTED since \d\d:\d\d:\d\d \(\d+ s\): http://", shown)
        assert re.search(r"; the figures are of \d\d:\d\d:\d\d", shown)
        assert "sessions" in shown

        start_daemon(server={"port": daemon.port})
        opened.until(lambda: "DISCONNECTED" not in opened.text)
        opened.type("q")

        assert 0 == opened.until_over()


@pytest.mark.slow
def test_top_waits_for_a_daemon_that_is_not_there_yet(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    daemon.stop()
    with terminal("top", "--url", daemon.url, "--interval", "200ms") as opened:
        opened.until_seen("Connection refused")
        start_daemon(server={"port": daemon.port})
        opened.until_seen("connections")


@pytest.mark.slow
def test_a_token_that_is_refused_ends_top_with_the_reason(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path))
    with top(daemon, "--token", sign(claims(admin=True, ttl=3))) as opened:
        assert 1 == opened.until_over()
        assert is_as_before(opened)
        assert opened.written.partition(ALTERNATE_OFF)[2].strip().endswith(b"has expired")
