"""What a webhook is sent: the body is as the schema says, and a signature proves whose it is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, ValidationError

from broadcasterd import __version__
from broadcasterd.alerts.notice import (
    Notice,
    action_name,
    notice,
    read_key,
    shown,
    signed_headers,
)
from broadcasterd.alerts.rules import Change, Rule
from broadcasterd.config import Alerts, ConfigError
from broadcasterd.figures.watched import Watched

SCHEMA = json.loads((Path(__file__).parents[2] / "config/alerts/webhook.schema.json").read_text())
SECRET_URL = "https://chat.example/hooks/s3cret"


def made(
    value: float | None = 512.3456, *, is_firing: bool = True, action: str = "page_on_call"
) -> Notice:
    rule = Rule(
        name="memory_critical",
        metric=Watched.USED_MB,
        threshold=500.0,
        clear_below=450.0,
        hold=0.0,
        clear_after=60.0,
        severity="critical",
        action=action,
    )
    change = Change(rule, is_firing=is_firing, value=value, lasted=0.0 if is_firing else 90.04)
    return notice(change, name=f"msg_{'0a' * 12}", daemon="host:8000", at=1_764_000_000.25)


def as_sent(news: Notice) -> Any:  # noqa: ANN401 (JSON)
    return json.loads(msgspec.json.encode(news))


# --- the body --------------------------------------------------------------------------------


def test_an_alert_that_fires_is_told_in_full() -> None:
    assert {
        "id": "msg_0a0a0a0a0a0a0a0a0a0a0a0a",
        "status": "firing",
        "alert": "memory_critical",
        "severity": "critical",
        "action": "page_on_call",
        "metric": "used_mb",
        "value": 512.3,
        "threshold": 500.0,
        "clear_below": 450.0,
        "lasted_s": 0.0,
        "time": "2025-11-24T16:00:00.250+00:00",
        "daemon": "host:8000",
        "version": __version__,
        "text": (
            "memory_critical (critical) is firing on host:8000:"
            " used_mb is 512.3, the threshold 500.0"
        ),
    } == as_sent(made())


def test_an_alert_that_is_over_says_for_how_long_it_fired() -> None:
    news = made(120.0, is_firing=False)

    assert ("resolved", 90.0) == (news.status, news.lasted_s)
    assert "memory_critical is over on host:8000 after 90 s: used_mb is 120.0" == news.text


@pytest.mark.parametrize("value", [0.0, 0.012345, 512.3456, 123_456.7, None])
@pytest.mark.parametrize("is_firing", [True, False])
@pytest.mark.parametrize("action", ["notify_team", "page_on_call", SECRET_URL])
def test_every_body_is_as_the_schema_says(
    *, value: float | None, is_firing: bool, action: str
) -> None:
    body = as_sent(made(value, is_firing=is_firing, action=action))

    Draft202012Validator(SCHEMA).validate(body)
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"]) == set(body)


@pytest.mark.parametrize(
    "change", [{"status": "bad"}, {"value": "1"}, {"id": "x"}, {"action": SECRET_URL}], ids=str
)
def test_the_schema_refuses_what_is_none(change: dict[str, object]) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(as_sent(made()) | change)


def test_a_url_is_shown_to_nobody() -> None:
    assert "webhook" == action_name(SECRET_URL)
    assert "page_on_call" == action_name("page_on_call")
    assert b"s3cret" not in msgspec.json.encode(made(action=SECRET_URL))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0123456, 0.01235),
        (99.99999, 100.0),
        (1234.56, 1235),
        (0.0, 0.0),
        (12_345_678.9, 12345679),
    ],
)
def test_figures_have_four_digits_and_lose_none_before_the_point(
    value: float, expected: float
) -> None:
    assert expected == shown(value)


# --- the header fields -----------------------------------------------------------------------


def test_the_signature_is_that_of_standard_webhooks(tmp_path: Path) -> None:
    """The example of its libraries."""
    (tmp_path / "key").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    headers = signed_headers(
        read_key(Alerts(webhook_key_file=tmp_path / "key")),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        at=1_614_265_330.9,
    )

    assert {
        "Content-Type": "application/json",
        "User-Agent": f"broadcasterd/{__version__}",
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    } == headers


def test_it_covers_the_name_the_time_and_the_body() -> None:
    key = b"k" * 32
    expected = hmac.new(key, b"a.7.body", hashlib.sha256).digest()

    assert (
        f"v1,{base64.b64encode(expected).decode()}"
        == (signed_headers(key, "a", b"body", at=7.5)["webhook-signature"])
    )


def test_without_a_key_nothing_is_signed() -> None:
    assert "webhook-signature" not in signed_headers(None, "a", b"", at=0.0)


# --- the key ---------------------------------------------------------------------------------


def test_without_a_file_there_is_no_key() -> None:
    assert read_key(Alerts()) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"short", "has 5 bytes, expected 24 at least"),
        (b"whsec_c2hvcnQ=", "has 5 bytes, expected 24 at least"),
        (b"whsec_!", "expected Base64 after whsec_"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_by_the_name_of_its_file(
    content: bytes | None, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_key(Alerts(webhook_key_file=file))

    assert f'alerts.webhook_key_file = "{file}": {expected}' == str(caught.value)
