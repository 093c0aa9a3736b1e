"""The configuration: defaults, files, the environment, and the messages to an operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd import former_names
from broadcasterd.config import (
    ENVIRONMENT_ONLY,
    AlertRule,
    Config,
    ConfigError,
    check_exposure,
    from_mapping,
    load,
    receivers,
)
from broadcasterd.figures.watched import Watched

CONFIG = Path(__file__).parents[2] / "config"
SECTIONS = [field.name for field in msgspec.structs.fields(Config)]


def keys(section: str) -> list[str]:
    """Return the keys that a file may have."""
    names = [field.name for field in msgspec.structs.fields(getattr(Config(), section))]
    return [name for name in names if f"{section}.{name}" not in ENVIRONMENT_ONLY]


def problems(tables: Mapping[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_mapping(tables)
    return str(caught.value).splitlines()


def problems_of(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    return str(caught.value).splitlines()


# --- the packaged files ----------------------------------------------------------------------


def test_packaged_file_says_the_defaults_but_keeps_events_and_trusts_local_proxies() -> None:
    packaged = load(CONFIG / "broadcasterd.toml", {})
    loopback = msgspec.structs.replace(Config().limits, trusted_proxies=("127.0.0.0/8", "::1"))

    kept = msgspec.structs.replace(Config().engine, kind="sqlite")

    assert packaged == msgspec.structs.replace(Config(), limits=loopback, engine=kept)


@pytest.mark.parametrize("section", SECTIONS)
def test_packaged_file_shows_and_explains_every_key(section: str) -> None:
    text = (CONFIG / "broadcasterd.toml").read_text()
    table = text.split(f"\n[{section}]\n")[1].split("\n[")[0]

    explained = re.findall(r"^(?:# )?(\w+) = .* # .+$", table, flags=re.MULTILINE)

    assert [key for key in explained if key in keys(section)] == keys(section)


def test_packaged_file_shows_every_key_of_a_rule() -> None:
    text = (CONFIG / "broadcasterd.toml").read_text()
    example = text.split("[[alerts.rules]]\n")[1].split("\n\n")[0]
    shown = re.findall(r"^(\w+) = ", example, flags=re.MULTILINE)

    assert shown == [field.encode_name for field in msgspec.structs.fields(AlertRule)]


def test_examples_in_the_packaged_file_can_be_switched_on(tmp_path: Path) -> None:
    text = (CONFIG / "broadcasterd.toml").read_text().replace("# rules = []", "", 1)
    everything = re.sub(r"^# (?=\w+ = |\[\[)", "", text, flags=re.MULTILINE)
    (tmp_path / "all.toml").write_text(everything)

    config = load(tmp_path / "all.toml", {})

    assert None not in msgspec.structs.astuple(config.server)
    assert None not in [getattr(config.auth, key) for key in keys("auth")]
    assert config.alerts.webhook_key_file == Path("/etc/broadcasterd/webhook_key")


def test_development_file_may_be_served() -> None:
    config = load(CONFIG / "development.toml", {})

    check_exposure(config)

    assert config.log.format == "console"


# --- where it comes from ---------------------------------------------------------------------


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None, {}) == Config()


def test_environment_names_the_file_unless_the_command_line_does(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("server.port = 1")
    (tmp_path / "b.toml").write_text("server.port = 2")
    environ = {"BROADCASTERD_CONFIG": str(tmp_path / "a.toml")}

    assert load(None, environ).server.port == 1
    assert load(tmp_path / "b.toml", environ).server.port == 2


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[server]\nport = 1\nbacklog = 7")

    server = load(tmp_path / "a.toml", {"BROADCASTERD_SERVER__PORT": "2"}).server

    assert (server.port, server.backlog) == (2, 7)


def test_environment_texts_become_the_keys_types() -> None:
    config = load(
        None,
        {
            "BROADCASTERD_SERVER__CORS_ORIGINS": "https://a.example, http://b.example:8080",
            "BROADCASTERD_SERVER__TLS_CERTIFICATE": "cert.pem",
            "BROADCASTERD_SERVER__TLS_KEY": "key.pem",
            "BROADCASTERD_SESSIONS__EVENT_TTL": "1.5",
            "BROADCASTERD_SESSIONS__SLOW_CONSUMER": "skip",
            "BROADCASTERD_AUTH__ISSUER": "",
            "BROADCASTERD_ALERTS__RULES": (
                '[{"name": "memory", "metric": "rss_mb", "threshold": 3, "for": "1m"}]'
            ),
            "BROADCASTERD_ALERTS__PAGE_ON_CALL": "https://pager.example/hook",
        },
    )

    assert config.server.cors_origins == ("https://a.example", "http://b.example:8080")
    assert config.server.tls_certificate == Path("cert.pem")
    assert config.sessions.event_ttl == 1.5
    assert config.sessions.slow_consumer == "skip"
    assert config.auth.issuer is None
    assert config.alerts.rules == (
        AlertRule(name="memory", metric=Watched.RSS_MB, threshold=3, hold=60),
    )
    assert config.alerts.receiver("page_on_call") == "https://pager.example/hook"


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "On"])
def test_environment_says_yes(text: str) -> None:
    assert load(None, {"BROADCASTERD_AUTH__ALLOW_QUERY_TOKEN": text}).auth.allow_query_token


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "OFF"])
def test_environment_says_no(text: str) -> None:
    assert not load(None, {"BROADCASTERD_MEMORY__BREAKER": text}).memory.breaker


@pytest.mark.parametrize("text", ["true", "1", "Yes"])
def test_legacy_switch_turns_the_breaker_off(text: str) -> None:
    environ = {"USE_LEGACY_BROADCASTER": text, "BROADCASTERD_MEMORY__BREAKER": "true"}

    assert not load(None, environ).memory.breaker


@pytest.mark.parametrize("text", ["false", "0", ""])
def test_legacy_switch_set_to_no_changes_nothing(text: str) -> None:
    assert load(None, {"USE_LEGACY_BROADCASTER": text}) == Config()


def test_other_variables_are_not_ours_to_judge() -> None:
    environ = {"BROADCASTERD_TEST_STRICT": "1", "BROADCASTERD_URL": "x", "SERVER__PORT": "x"}

    assert load(None, environ) == Config()


def test_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Config().server.port = 1  # type: ignore[misc]


# --- what is refused, and in which words -----------------------------------------------------


def test_unknown_key_names_the_nearest() -> None:
    assert problems({"sessions": {"session_tll": 1}}) == [
        "sessions.session_tll: unknown key (did you mean session_ttl?)"
    ]


def test_unknown_section_names_the_nearest() -> None:
    assert problems({"session": {}}) == ["session: unknown section (did you mean sessions?)"]


def test_unknown_key_that_resembles_nothing_gets_no_guess() -> None:
    assert problems({"log": {"xyzzy": 1}}) == ["log.xyzzy: unknown key"]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("BROADCASTERD_LOG__LEVLE", "BROADCASTERD_LOG__LEVEL"),
        ("BROADCASTERD_SERVER_PORT", "BROADCASTERD_SERVER__PORT"),
        ("BROADCASTERD_MEMORY__WARNING__MB", "BROADCASTERD_MEMORY__WARNING_MB"),
        ("BROADCASTERD_SERVER__PROT", "BROADCASTERD_SERVER__PORT"),
    ],
)
def test_a_variable_that_is_no_setting_names_the_one_that_was_meant(
    variable: str, meant: str
) -> None:
    assert problems_of(**{variable: "1"}) == [f"{variable}: no setting (did you mean {meant}?)"]


def test_a_variable_that_resembles_nothing_is_refused_as_well() -> None:
    assert problems_of(BROADCASTERD_XYZZY="1") == ["BROADCASTERD_XYZZY: no setting"]


@pytest.mark.parametrize("name", ["CONFIG", "URL", "TOKEN", "TEST_STRICT"])
def test_variables_that_are_meant_for_others_are_left_alone(name: str) -> None:
    assert load(None, {f"BROADCASTERD_{name}": ""}) == Config()


def test_a_key_outside_of_its_section_names_that() -> None:
    assert problems({"port": 8000, "secret_file": "x"}) == [
        "port: expected in a section: [server]",
        "secret_file: expected in a section: [auth]",
    ]


@pytest.mark.parametrize(("old", "new"), former_names.KEYS.items())
def test_the_name_of_an_in_process_broadcaster_gets_ours(old: str, new: str) -> None:
    section, _, key = new.partition(".")

    assert hasattr(getattr(Config(), section), key)
    assert problems({old: 1}) == [f"{old}: here it is {new}"]
    assert problems({"sessions": {old: 1}}) == [f"sessions.{old}: unknown key; here it is {new}"]


@pytest.mark.parametrize(("old", "new"), former_names.VARIABLES.items())
def test_a_variable_of_an_in_process_broadcaster_gets_ours(old: str, new: str) -> None:
    section, key = new.removeprefix("BROADCASTERD_").lower().split("__")

    assert hasattr(getattr(Config(), section), key)
    assert problems_of(**{old: "1"}) == [f"{old}: here it is {new}"]


@pytest.mark.parametrize(
    ("section", "key", "text", "value"),
    [
        ("sessions", "session_ttl", "1h30m", 5400.0),
        ("sessions", "event_ttl", "500ms", 0.5),
        ("sessions", "retry_ms", "3s", 3000),
        ("sessions", "max_history_bytes", "64KiB", 65_536),
        ("server", "max_body_bytes", "1MB", 1_000_000),
        ("auth", "leeway", "0s", 0.0),
        ("memory", "warning_mb", "100MiB", 100.0),
    ],
)
def test_durations_and_sizes_may_have_units(
    section: str, key: str, text: str, value: float
) -> None:
    variable = f"BROADCASTERD_{section}__{key}".upper()
    for config in (from_mapping({section: {key: text}}), load(None, {variable: text})):
        taken = getattr(getattr(config, section), key)

        assert (value, type(value)) == (taken, type(taken))


@pytest.mark.parametrize(
    ("section", "key", "text"),
    [
        ("sessions", "session_ttl", "3600"),
        ("sessions", "session_ttl", "1 week"),
        ("sessions", "session_ttl", "0s"),
        ("sessions", "retry_ms", "1.5ms"),
        ("sessions", "retry_ms", "2d"),
        ("sessions", "max_history_bytes", "0.5B"),
        ("sessions", "max_history_bytes", "1h"),
        ("server", "port", "1kB"),
    ],
)
def test_other_texts_are_no_numbers(section: str, key: str, text: str) -> None:
    [problem] = problems({section: {key: text}})

    assert problem.startswith(f'{section}.{key} = "{text}": expected ')


def test_every_problem_is_told_at_once() -> None:
    assert problems({"server": {"port": "x"}, "log": {"level": "loud"}, "memory": 3}) == [
        'server.port = "x": expected a whole number from 0 to 65535',
        'log.level = "loud": expected one of debug, info, warning, error',
        "memory: expected a table, written [memory]",
    ]


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("server", "port", -1, "a whole number from 0 to 65535"),
        ("server", "port", 65536, "a whole number from 0 to 65535"),
        ("server", "host", "", "a string that is not empty"),
        ("server", "backlog", True, "a whole number above 0"),
        ("server", "tls_key", "", "a path"),
        ("server", "cors_origins", ["https://a.example/"], "a list of origins like"),
        ("server", "max_body_bytes", 1.5, "a whole number of bytes above 0"),
        ("sessions", "heartbeat_interval", 0, "a number of seconds above 0"),
        ("sessions", "session_ttl", float("inf"), "a number of seconds above 0"),
        ("sessions", "session_ttl", float("nan"), "a number of seconds above 0"),
        ("sessions", "retry_ms", 0, "milliseconds from 1 to 86400000, which is a day"),
        ("sessions", "min_retry_ms", 86_400_001, "milliseconds from 1 to 86400000"),
        ("limits", "publish_rate", 0.0001, "a number per second from 0.001"),
        ("sessions", "slow_consumer", "drop", "one of end, skip"),
        ("memory", "breaker", "true", "true or false"),
        ("memory", "warning_mb", 0, "a number of megabytes above 0"),
        ("memory", "recover_below", 0, "a number above 0, at most 1"),
        ("memory", "recover_below", 1.01, "a number above 0, at most 1"),
        ("auth", "algorithms", ["none"], "a list of HS256, "),
        ("auth", "algorithms", [], "a list of HS256, "),
    ],
)
def test_wrong_value_is_shown_with_what_was_expected(
    section: str, key: str, value: object, expected: str
) -> None:
    [problem] = problems({section: {key: value}})

    assert problem.startswith(f"{section}.{key} = ")
    assert f": expected {expected}" in problem


def test_wrong_variable_is_named_beside_its_key() -> None:
    assert problems_of(BROADCASTERD_MEMORY__BREAKER="maybe", USE_LEGACY_BROADCASTER="maybe") == [
        'memory.breaker = "maybe" (from BROADCASTERD_MEMORY__BREAKER): expected true or false',
        'USE_LEGACY_BROADCASTER = "maybe": expected true or false',
    ]


def test_secrets_are_not_repeated() -> None:
    rules = [{"name": "m", "metric": "rss_mb", "threshold": 1, "action": "ftp://s3cret"}]
    alerts = {"rules": rules, "notify_team": "s3cret", "page_on_call": ["s3cret"]}
    told = problems({"auth": {"secret_file": ["s3cret"]}, "alerts": alerts})
    told += problems({"auth": {"secret": "s3cret"}})
    told += problems_of(BROADCASTERD_AUTH__SECRETS="s3cret", BROADCASTERD_ALERTS__RULES="s3cret")
    told += problems({"alerts": {"notify_team": "https://hooks.example:s3cret/"}})

    assert len(told) == 8
    assert "s3cret" not in "".join(told)


def test_a_secret_may_come_from_the_environment_but_not_from_the_file() -> None:
    [told] = problems({"auth": {"secret": "x" * 32}})

    assert told == (
        "auth.secret: no key of a file; expected auth.secret_file, or BROADCASTERD_AUTH__SECRET in"
        " the environment"
    )

    config = load(None, {"BROADCASTERD_AUTH__SECRET": "s3cret"})

    assert config.auth.secret is not None
    assert b"s3cret" == config.auth.secret.content
    assert "s3cret" not in repr(config)
    assert config == load(None, {"BROADCASTERD_AUTH__SECRET": "s3cret"})
    assert config != load(None, {"BROADCASTERD_AUTH__SECRET": "another"})
    assert load(None, {"BROADCASTERD_AUTH__SECRET": ""}).auth.secret is None


def test_warning_must_be_below_critical() -> None:
    assert problems({"memory": {"warning_mb": 500}}) == [
        "memory.warning_mb = 500: expected less than memory.critical_mb = 500"
    ]


@pytest.mark.parametrize(
    ("given_key", "absent"), [("tls_key", "tls_certificate"), ("tls_certificate", "tls_key")]
)
def test_certificate_and_key_go_together(given_key: str, absent: str) -> None:
    assert problems({"server": {given_key: "x.pem"}}) == [
        f'server.{given_key} = "x.pem": expected server.{absent} beside it'
    ]


# --- rules for alerts ------------------------------------------------------------------------

RULE = {"name": "memory", "metric": "rss_mb", "threshold": 400}


def rule_problems(*rules: Mapping[str, object]) -> list[str]:
    return problems({"alerts": {"rules": [*rules]}})


def test_a_rule_takes_durations() -> None:
    config = from_mapping({"alerts": {"rules": [RULE | {"for": "1m30s", "clear_after": 5}]}})

    [rule] = config.alerts.rules

    assert (90.0, 5.0) == (rule.hold, rule.clear_after)


def test_no_rules_are_no_rules() -> None:
    assert () == from_mapping({"alerts": {"rules": []}}).alerts.rules


def test_a_figure_that_is_unknown_is_told_with_those_that_there_are() -> None:
    [problem] = rule_problems(RULE | {"metric": "rss"})

    assert problem.startswith('alerts.rules[0].metric = "rss": expected one of used_mb, rss_mb, ')
    assert problem.endswith(" (did you mean rss_mb?)")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"threshold": 0}, 'threshold = 0: expected a number above 0, "memory.warning_mb"'),
        ({"threshold": "200 MB"}, 'threshold = "200 MB": expected a number above 0'),
        ({"threshold": float("nan")}, "threshold = NaN: expected a number above 0"),
        ({"for": -1}, "for = -1: expected a number of seconds from 0"),
        ({"clear_below": 1.1}, "clear_below = 1.1: expected a number above 0, at most 1"),
        ({"severity": "bad"}, 'severity = "bad": expected one of info, warning, error, critical'),
        ({"name": "a b"}, 'name = "a b": expected a name of up to 64 letters'),
        ({"hold": 1}, "hold: unknown key"),
        ({"fro": 1}, "fro: unknown key (did you mean for?)"),  # codespell:ignore fro
        ({"action": "email"}, 'action: expected "journal", "notify_team"'),
        ({"action": "ftp://example.org"}, 'action: expected "journal", "notify_team"'),
        ({"action": "https://a b"}, 'action: expected "journal", "notify_team"'),
        ({"action": "https://:80/"}, "action: expected a URL like"),
        ({"action": "http://a:99999/"}, "action: expected a URL like"),
        ({"action": "http://[::1/"}, "action: expected a URL like"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_rule_that_cannot_be_is_told_by_its_number_and_key(
    change: Mapping[str, object], expected: str
) -> None:
    other = RULE | {"name": "other"}

    [problem] = rule_problems(other, {**RULE, **change})

    assert problem.startswith(f"alerts.rules[1].{expected}")


def test_what_a_rule_lacks_is_told() -> None:
    told = rule_problems({"name": "memory"})

    assert ["metric", "threshold"] == [line.partition(":")[0].rpartition(".")[2] for line in told]


def test_rules_have_names_of_their_own() -> None:
    assert ['alerts.rules: expected one of each name, has two "memory"'] == rule_problems(
        RULE, RULE | {"metric": "used_mb"}
    )


def test_there_is_an_end_to_rules() -> None:
    [problem] = rule_problems(*(RULE | {"name": f"r{n}"} for n in range(101)))

    assert "alerts.rules: expected 100 at most, has 101" == problem


@pytest.mark.parametrize("rules", [3, "x", {"name": "m"}, [1]], ids=str)
def test_rules_are_tables(rules: object) -> None:
    assert ["alerts.rules: expected tables, each written [[alerts.rules]]"] == problems(
        {"alerts": {"rules": rules}}
    )


@pytest.mark.parametrize("url", ["ftp://example.org", "https://", "http://:80", "http://a:0", "x"])
@pytest.mark.parametrize("action", ["notify_team", "page_on_call"])
def test_an_action_goes_to_the_journal_or_to_a_url_that_can_be_asked(action: str, url: str) -> None:
    [problem] = problems({"alerts": {action: url}})

    assert problem.startswith(f"alerts.{action}: expected ")


def test_urls_are_found_by_their_settings() -> None:
    config = from_mapping(
        {
            "alerts": {
                "page_on_call": "https://pager.example/",
                "rules": [RULE, RULE | {"name": "b", "action": "http://127.0.0.1:7/x"}],
            }
        }
    )

    assert [
        ("alerts.page_on_call", "https://pager.example/"),
        ("alerts.rules[1].action", "http://127.0.0.1:7/x"),
    ] == [*receivers(config.alerts)]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml", {})


@pytest.mark.parametrize("content", [b"server = [", b"# \xff"])
def test_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(content)

    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML"):
        load(tmp_path / "bad.toml", {})


toml_values: st.SearchStrategy[object] = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("section", SECTIONS)
@given(data=st.data())
@pytest.mark.slow
def test_any_value_is_taken_or_refused_in_words(section: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(keys(section)))
    table = {key: data.draw(toml_values)}

    refusal = f"{section}."
    try:
        from_mapping({section: table})
    except ConfigError as error:
        refusal = str(error)

    assert refusal.startswith(f"{section}.")


# --- who may be let in -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_open_daemon_may_listen_on_loopback(host: str) -> None:
    check_exposure(from_mapping({"server": {"host": host}, "auth": {"mode": "none"}}))


@pytest.mark.parametrize("host", ["::", "192.0.2.1", "localhost.example", "example.org"])
def test_open_daemon_may_not_listen_elsewhere(host: str) -> None:
    config = from_mapping({"server": {"host": host}, "auth": {"mode": "none"}})

    with pytest.raises(ConfigError, match=f'server.host = "{host}": expected a loopback address'):
        check_exposure(config)


def test_open_daemon_may_listen_elsewhere_where_that_is_meant() -> None:
    meant = {"mode": "none", "i_know_this_is_open": True}

    check_exposure(from_mapping({"server": {"host": "::"}, "auth": meant}))


def test_daemon_that_asks_for_tokens_may_listen_anywhere() -> None:
    check_exposure(from_mapping({"server": {"host": "0.0.0.0"}}))  # noqa: S104 (the point)
