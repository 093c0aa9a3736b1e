"""The command line: usage, exit statuses, and its texts for a person."""

from __future__ import annotations

import hashlib
import io
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import jwt
import pytest

import broadcasterd
from broadcasterd import cli, client
from broadcasterd.config import Config, ConfigError
from tests.support.certificate import Certificate
from tests.support.tokens import RSA_KEY, oct_jwk, public_jwk, write_jwks

SECRET = "0123456789abcdef0123456789abcdef"
OPEN = '[auth]\nmode = "none"\n'


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BROADCASTERD_CONFIG", "BROADCASTERD_URL", "BROADCASTERD_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as exited:
        cli.main(argv)
    assert isinstance(exited.value.code, int)
    return exited.value.code


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "broadcasterd.toml"
        path.write_text(text)
        return str(path)

    return write


ConfigFile = Callable[[str], str]
Output = pytest.CaptureFixture[str]


# --- usage -----------------------------------------------------------------------------------


def test_version_and_help_succeed(capsys: Output) -> None:
    assert run("--version") == 0
    assert run("--help") == 0

    printed = capsys.readouterr().out
    assert printed.startswith(f"broadcasterd {broadcasterd.__version__}\n")
    assert all(
        name in printed
        for name in ("serve", "check-config", "publish", "tail", "token", "stats", "top")
    )


def test_module_is_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "broadcasterd", "--version"],
        capture_output=True,
        check=True,
        text=True,
    )

    assert ran.stdout == f"broadcasterd {broadcasterd.__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["dance"],
        ["serve", "--port"],
        ["tail"],
        ["tail", "no/slash"],
        ["tail", "s", "--url", "example.org"],
        ["tail", "s", "--url", "http://[::1"],
        ["tail", "s", "--token", "not\nprintable"],
        ["tail", "s", "--last-event-id", "ü"],
        ["publish", "s"],
        ["publish", "", "--data", "x"],
        ["publish", "s", "-", "--data", "x"],
        ["publish", "s", "--data", "x", "--ndjson"],
        ["publish", "s", "-", "--ndjson", "--event", "x"],
        ["publish", "s", "--data", "x", "--retry-for", "soon"],
        ["publish", "s", "--data", "x", "--retry-for", "-1"],
        ["token"],
        ["token", "--subscribe", "*", "--ttl", "0"],
        ["token", "--subscribe", "a/b"],
        ["token", "--publish", ""],
        ["token", "--admin", "--subject", ""],
    ],
)
def test_bad_usage_is_status_2_with_one_error_line(argv: list[str], capsys: Output) -> None:
    assert run(*argv) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert "Usage: broadcasterd" in told.err


def test_bad_usage_does_not_repeat_a_token(capsys: Output) -> None:
    run("tail", "s", "--token", "s3cret\n")

    assert "s3cret" not in capsys.readouterr().err


# --- check-config and serve ------------------------------------------------------------------


def test_good_configuration_is_status_0(config_file: ConfigFile) -> None:
    assert run("check-config", "--config", config_file(OPEN)) == 0


@pytest.mark.parametrize("command", ["check-config", "serve"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[sessions]\nsession_tll = 1", "sessions.session_tll: unknown key"),
        ("[server]\nport = 'x'", 'server.port = "x": expected a whole number'),
        ("[", "broadcasterd.toml: not valid TOML"),
        ("", "auth.secret_file: expected the file of a secret, or auth.jwks_file"),
        ("auth.secret_file = '/nonexistent'", "auth.secret_file: cannot be read: No such file"),
        (f"{OPEN}[server]\nhost = '192.0.2.1'", 'server.host = "192.0.2.1": expected a loopback'),
    ],
)
def test_bad_configuration_is_status_2_and_named(
    command: str, text: str, told: str, config_file: ConfigFile, capsys: Output
) -> None:
    assert run(command, "--config", config_file(text)) == 2

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("broadcasterd: ")
    assert told in lines[0]


def test_each_problem_of_a_configuration_has_its_line(
    config_file: ConfigFile, capsys: Output
) -> None:
    assert run("check-config", "--config", config_file("a.b = 1\nlog.c = 1")) == 2

    assert len(capsys.readouterr().err.splitlines()) == 2


def test_missing_configuration_file_is_status_2(tmp_path: Path, capsys: Output) -> None:
    assert run("check-config", "--config", str(tmp_path / "none")) == 2

    assert "cannot be read" in capsys.readouterr().err


def test_check_config_takes_the_file_as_an_argument(
    config_file: ConfigFile, capsys: Output
) -> None:
    file = config_file(OPEN)

    assert run("check-config", file) == 0
    assert "the configuration is good" in capsys.readouterr().out
    assert run("check-config", file, "--config", file) == 2


def test_check_config_names_keys_and_certificate_as_records_do(
    tmp_path: Path, config_file: ConfigFile, capsys: Output
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    certificate = Certificate.make(tmp_path)
    tls = f"tls_certificate = '{certificate.chain}'\ntls_key = '{certificate.key}'"
    text = f"[auth]\nsecret_file = '{tmp_path}/secret'\n[server]\n{tls}\n"

    assert run("check-config", config_file(text)) == 0

    der = ssl.PEM_cert_to_DER_cert(certificate.chain.read_text())
    _, secret, shown = capsys.readouterr().out.splitlines()
    assert secret == f"secret {hashlib.sha256(SECRET.encode()).hexdigest()[:12]}"
    assert shown.startswith(f"certificate {hashlib.sha256(der).hexdigest()[:12]} until 2")


def test_commands_take_the_credentials_of_systemd(
    tmp_path: Path, config_file: ConfigFile, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    config = config_file("[auth]\nsecret_file = '/nonexistent'")

    assert run("check-config", config) == 0
    assert run("token", "--admin", "--config", config) == 0
    assert jwt.decode(capsys.readouterr().out.split()[-1], SECRET, algorithms=["HS256"])


@pytest.mark.parametrize(
    ("directory", "code", "told"),
    [(None, 2, "$RUNTIME_DIRECTORY is not set"), ("/nonexistent", 1, "no daemon answers in /none")],
)
def test_reload_says_whom_it_cannot_ask(
    directory: str | None, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    if directory is not None:
        monkeypatch.setenv("RUNTIME_DIRECTORY", directory)

    assert run("reload") == code
    assert told in capsys.readouterr().err


def test_check_config_reads_the_certificate(
    tmp_path: Path, config_file: ConfigFile, capsys: Output
) -> None:
    missing = tmp_path / "chain.pem"
    tls = f"[server]\ntls_certificate = '{missing}'\ntls_key = '{missing}'\n"

    assert run("check-config", config_file(f"{OPEN}{tls}")) == 2
    assert f'server.tls_certificate = "{missing}": cannot be read' in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "is_noted"), [(0o600, True), (0o644, False)])
def test_check_config_says_to_root_what_the_service_could_not_read(
    mode: int,
    is_noted: bool,  # noqa: FBT001 (a column of the table)
    config_file: ConfigFile,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    file = Path(config_file(OPEN))
    file.chmod(mode)
    # The directories of a test are its user's alone.
    monkeypatch.setattr("broadcasterd.cli.serve._opens", lambda _directory: True)

    assert run("check-config", str(file)) == 0
    assert ("but not the user of the service" in capsys.readouterr().err) is is_noted


@pytest.fixture
def serve_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Let the command `serve` call this function instead of the daemon's main."""

    def replace(main: Callable[..., None]) -> None:
        run_module = ModuleType("broadcasterd.process")
        run_module.main = main  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "broadcasterd.process", run_module)
        monkeypatch.setattr(broadcasterd, "process", run_module, raising=False)

    return replace


Serve = Callable[[Callable[..., None]], None]


def test_serve_runs_the_daemon_on_its_configuration(
    serve_with: Serve, config_file: ConfigFile
) -> None:
    served: list[Config] = []

    def main(load: Callable[[], Config], *, on_ready: object) -> None:
        served.append(load())

    serve_with(main)

    assert run("serve", "--config", config_file(f"{OPEN}[server]\nport = 0")) == 0
    assert served[0].server.port == 0


def test_a_reload_reads_the_same_file_as_the_start(
    serve_with: Serve, config_file: ConfigFile
) -> None:
    ports: list[int] = []

    def main(load: Callable[[], Config], *, on_ready: object) -> None:
        ports.append(load().server.port)
        config_file(f"{OPEN}[server]\nport = 2")
        ports.append(load().server.port)
        config_file("[server]\nport = 'x'")
        with pytest.raises(ConfigError, match="port"):
            load()

    serve_with(main)

    assert run("serve", "--config", config_file(f"{OPEN}[server]\nport = 1")) == 0
    assert [1, 2] == ports


def test_examples_can_be_pasted_where_no_token_is_needed(
    serve_with: Serve, config_file: ConfigFile, capsys: Output
) -> None:
    serve_with(lambda load, *, on_ready: on_ready(["http://[::1]:9"]))

    assert run("serve", "--examples", "--config", config_file(OPEN)) == 0

    events = "'http://[::1]:9/v1/sessions/demo/events'"
    subscribe, publish = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("curl")
    ]
    assert subscribe == f"curl -N {events}"
    assert publish == (
        "curl -H 'Content-Type: application/json'"
        f""" -d '{{"data": {{"hello": "world"}}, "event": "greeting"}}' {events}"""
    )


def test_examples_have_a_token_where_one_is_needed(
    serve_with: Serve, secret_file: Path, config_file: ConfigFile, capsys: Output
) -> None:
    serve_with(lambda load, *, on_ready: on_ready(["http://[::1]:9"]))
    config = config_file(f'[auth]\nsecret_file = "{secret_file}"')

    assert run("serve", "--examples", "--config", config) == 0

    printed = capsys.readouterr().out
    tokens = re.findall(r'^curl .*-H "Authorization: Bearer ([\w.-]+)"', printed, re.MULTILINE)
    assert len(tokens) == 2
    for token in tokens:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"])
        assert claims["broadcaster"] == {"subscribe": ["demo"], "publish": ["demo"]}


def test_examples_leave_a_place_for_a_token_that_only_others_can_sign(
    serve_with: Serve, tmp_path: Path, config_file: ConfigFile, capsys: Output
) -> None:
    serve_with(lambda load, *, on_ready: on_ready(["http://[::1]:9"]))
    jwks = write_jwks(tmp_path / "jwks.json", public_jwk(RSA_KEY))
    config = config_file(f'[auth]\nalgorithms = ["RS256"]\njwks_file = "{jwks}"')

    assert run("serve", "--examples", "--config", config) == 0
    assert capsys.readouterr().out.count('-H "Authorization: Bearer $TOKEN"') == 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(98, "cannot listen at port 1"), "cannot listen at port 1"),
        (OSError(2, "No such file or directory", "key.pem"), "key.pem: No such file or directory"),
        (OSError("no address"), "no address"),
    ],
)
def test_daemon_that_cannot_listen_is_status_1_and_says_why(
    error: OSError, told: str, serve_with: Serve, config_file: ConfigFile, capsys: Output
) -> None:
    def main(load: object, *, on_ready: object) -> None:
        raise error

    serve_with(main)

    assert run("serve", "--config", config_file(OPEN)) == 1
    assert capsys.readouterr().err == f"Error: cannot serve: {told}\n"


# --- publish and tail ------------------------------------------------------------------------


RECEIPT = client.Receipt(session="s", accepted=1)


class Published:
    """Stands in for the client, and for its publisher, and keeps what it was given."""

    def __init__(self) -> None:
        self.url = ""
        self.token: str | None = None
        self.proxy: str | None = None
        self.retry_for = 0.0
        self.events: list[tuple[object, ...]] = []
        self.session = ""
        self.lines: tuple[bytes, str | None, bool] | None = None

    def __call__(
        self,
        url: str,
        *,
        retry_for: float,
        token: str | None,
        proxy: str | None,
        notify: Callable[[str], None],
    ) -> Self:
        self.url, self.retry_for, self.token, self.proxy = url, retry_for, token, proxy
        notify("told aside")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def publish(self, session: str, data: object, *, event: str | None) -> client.Receipt:
        self.session = session
        self.events.append((data, event))
        return RECEIPT

    def publisher(self, session: str) -> Self:
        self.session = session
        return self

    def publish_lines(
        self, source: io.BytesIO, *, event: str | None, ndjson: bool
    ) -> client.Receipt:
        self.lines = source.read(), event, ndjson
        return RECEIPT


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    published = Published()
    monkeypatch.setattr(client, "Client", published)
    return published


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def say(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    return say


def test_publish_sends_data_and_prints_the_answer(published: Published, capsys: Output) -> None:
    assert run("publish", "s", "--data", "hej", "--event", "greeting") == 0

    assert (published.url, published.session) == ("http://127.0.0.1:8000", "s")
    assert published.events == [("hej", "greeting")]
    assert capsys.readouterr() == (f"{RECEIPT.as_json()}\n", "broadcasterd: told aside\n")


@pytest.mark.parametrize("dash", [["-"], ["--data", "-"], ["-", "--data", "-"]])
def test_publish_reads_lines(
    dash: list[str], published: Published, stdin: Callable[[bytes], None]
) -> None:
    stdin(b"ett\n")

    assert run("publish", "s", *dash, "--event", "line") == 0
    assert published.lines == (b"ett\n", "line", False)


def test_publish_reads_ndjson(published: Published, stdin: Callable[[bytes], None]) -> None:
    stdin(b'{"data": 1}')

    assert run("publish", "s", "-", "--ndjson") == 0
    assert published.lines == (b'{"data": 1}', None, True)


@pytest.mark.parametrize(
    ("told", "seconds"), [([], 60), (["0"], 0), (["2.5"], 2.5), (["10m"], 600), (["1h30m"], 5400)]
)
def test_how_long_to_retry_is_seconds_or_a_duration(
    told: list[str], seconds: float, published: Published
) -> None:
    options = [f"--retry-for={text}" for text in told]

    assert run("publish", "s", "--data", "x", *options) == 0
    assert published.retry_for == seconds


def test_address_and_token_come_from_the_environment(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROADCASTERD_URL", "https://events.example/")
    monkeypatch.setenv("BROADCASTERD_TOKEN", "t0")

    assert run("publish", "s", "--data", "x") == 0

    assert (published.url, published.session) == ("https://events.example/", "s")
    assert published.token == "t0"


def test_refused_publish_is_status_1_with_the_reason(
    published: Published, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise client.RequestFailed("403 Forbidden: not yours")

    monkeypatch.setattr(published, "publish", refuse)

    assert run("publish", "s", "--data", "x") == 1
    assert capsys.readouterr().err.endswith("Error: 403 Forbidden: not yours\n")


def test_interrupted_publish_is_status_130_without_a_traceback(
    published: Published, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(published, "publish", interrupt)

    assert run("publish", "s", "--data", "x") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_the_proxy_that_is_told_is_asked(published: Published) -> None:
    assert run("publish", "s", "--data", "x", "--proxy", "http://proxy.example:3128") == 0
    assert published.proxy == "http://proxy.example:3128"
    assert run("publish", "s", "--data", "x") == 0
    assert published.proxy is None


def tail_of(monkeypatch: pytest.MonkeyPatch, events: Callable[[], Iterator[Any]]) -> None:
    class Followed:
        """Stands in for the client."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def subscribe(self, *_: object, **__: object) -> nullcontext[Iterator[Any]]:
            return nullcontext(events())

    monkeypatch.setattr(client, "Client", Followed)


def received(data: str, *, event: str = "message") -> client.Received:
    return client.Received(id="a-1", event=event, data=data)


def test_tail_prints_data_and_tells_of_gaps_aside(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    gap = received('{"oldest": "a-1"}', event="broadcaster.gap")
    tail_of(monkeypatch, lambda: iter([gap, received("ett\ntv\u00e5")]))

    assert run("tail", "s") == 0

    told = capsys.readouterr()
    assert told.out == "ett\ntv\u00e5\n"
    assert told.err == 'broadcasterd: gap: {"oldest": "a-1"}\n'


def test_tail_prints_json_lines(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    tail_of(monkeypatch, lambda: iter([received("a\nb"), received("\u00e5", event="e")]))

    assert run("tail", "s", "--json") == 0

    assert capsys.readouterr().out == (
        '{"id": "a-1", "event": "message", "data": "a\\nb"}\n'
        '{"id": "a-1", "event": "e", "data": "\u00e5"}\n'
    )


def test_refused_tail_is_status_1(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def refuse() -> Iterator[client.Received]:
        yield received("1")
        raise client.RequestFailed("401 Unauthorized")

    tail_of(monkeypatch, refuse)

    assert run("tail", "s") == 1
    assert capsys.readouterr() == ("1\n", "Error: 401 Unauthorized\n")


def test_interrupted_tail_is_status_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def interrupt() -> Iterator[client.Received]:
        yield received("1")
        raise KeyboardInterrupt

    tail_of(monkeypatch, interrupt)

    assert run("tail", "s") == 130
    assert capsys.readouterr().err.strip() == ""


# --- token -----------------------------------------------------------------------------------


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


def test_token_carries_what_was_granted(
    secret_file: Path, config_file: ConfigFile, capsys: Output
) -> None:
    config = config_file(
        f'[auth]\nsecret_file = "{secret_file}"\naudience = "events"\nissuer = "me"'
    )
    before = int(time.time())

    status = run(
        "token", "--config", config, "--subscribe", "a*", "--subscribe", "b", "--publish", "c:*",
        "--subject", "somebody", "--ttl", "60",
    )  # fmt: skip

    assert status == 0
    signed = capsys.readouterr().out.strip()
    claims = jwt.decode(signed, SECRET, algorithms=["HS256"], audience="events", issuer="me")
    assert before <= claims["iat"] <= time.time()
    assert claims["exp"] == claims["iat"] + 60
    assert claims["sub"] == "somebody"
    assert claims["broadcaster"] == {"subscribe": ["a*", "b"], "publish": ["c:*"], "admin": False}


def test_token_has_no_more_claims_than_configured(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("BROADCASTERD_AUTH__SECRET_FILE", str(secret_file))

    assert run("token", "--admin") == 0

    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"])
    assert claims.keys() == {"iat", "exp", "broadcaster"}
    assert claims["broadcaster"]["admin"] is True


@pytest.mark.parametrize(
    ("auth", "told"),
    [
        ("", "auth.secret_file: not set"),
        ('secret_file = "/nonexistent"', "auth.secret_file: cannot be read: No such file"),
        (
            'secret_file = "/dev/null"',
            'auth.secret_file = "/dev/null": holds 0 bytes, expected at least 32',
        ),
        ('algorithms = ["RS256"]', "auth.secret_file: not set"),
    ],
)
def test_token_without_a_usable_secret_is_status_2(
    auth: str, told: str, config_file: ConfigFile, capsys: Output
) -> None:
    assert run("token", "--subscribe", "*", "--config", config_file(f"[auth]\n{auth}")) == 2

    assert told in capsys.readouterr().err


def test_token_is_signed_with_the_secret_of_a_jwk_set_that_is_named(
    tmp_path: Path, config_file: ConfigFile, capsys: Output
) -> None:
    jwks = write_jwks(tmp_path / "jwks.json", oct_jwk(SECRET, kid="2026"))
    config = config_file(f'[auth]\njwks_file = "{jwks}"')

    assert run("token", "--kid", "2026", "--subscribe", "*", "--config", config) == 0

    signed = capsys.readouterr().out.strip()
    assert jwt.get_unverified_header(signed)["kid"] == "2026"
    assert jwt.decode(signed, SECRET, algorithms=["HS256"])["broadcaster"]["subscribe"] == ["*"]
    assert run("token", "--kid", "2025", "--subscribe", "*", "--config", config) == 2
    assert "--kid 2025: expected the kid of a secret" in capsys.readouterr().err


def test_line_break_does_not_make_a_short_secret_long_enough(
    secret_file: Path, config_file: ConfigFile
) -> None:
    secret_file.write_text(SECRET[:-1] + "\n")
    config = config_file(f'[auth]\nsecret_file = "{secret_file}"')

    assert run("token", "--subscribe", "*", "--config", config) == 2
