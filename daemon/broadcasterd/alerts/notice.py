"""What a webhook is sent: a body, and header fields that prove whose it is.

The fields are those of Standard Webhooks, which libraries of many languages check. The body is
described by ``config/alerts/webhook.schema.json``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from datetime import UTC, datetime
from typing import Literal

import msgspec

from broadcasterd import __version__
from broadcasterd.alerts.rules import Change
from broadcasterd.config import Alerts, ConfigError

MIN_KEY_BYTES = 24
"""Standard Webhooks asks for so many, and for 64 at the most, which nothing here depends on."""

_PREFIX = b"whsec_"


class Notice(msgspec.Struct, frozen=True):
    """An alert that fires, or is over; see the schema.

    Attributes:
        id: the same however often it is sent.
        daemon: names the daemon to people: its host, and the port that it listens on.
        text: all of it in a sentence; chats show a member of this name.

    """

    id: str
    status: Literal["firing", "resolved"]
    alert: str
    severity: str
    action: str
    metric: str
    value: float | None
    threshold: float
    clear_below: float
    lasted_s: float
    time: str
    daemon: str
    version: str
    text: str


def notice(change: Change, *, name: str, daemon: str, at: float) -> Notice:
    """Return what to tell of a change.

    Args:
        change: an alert that fires, or is over.
        name: that of this notice, and of no other.
        daemon: names the daemon to people.
        at: when it happened, Unix time in seconds.

    """
    rule = change.rule
    value = None if change.value is None else shown(change.value)
    figure = f"{rule.metric} is {'unknown' if value is None else value}"
    text = (
        f"{rule.name} ({rule.severity}) is firing on {daemon}:"
        f" {figure}, the threshold {shown(rule.threshold)}"
        if change.is_firing
        else f"{rule.name} is over on {daemon} after {change.lasted:.0f} s: {figure}"
    )
    return Notice(
        id=name,
        status="firing" if change.is_firing else "resolved",
        alert=rule.name,
        severity=rule.severity,
        action=action_name(rule.action),
        metric=rule.metric.value,
        value=value,
        threshold=shown(rule.threshold),
        clear_below=shown(rule.clear_below),
        lasted_s=round(change.lasted, 1),
        time=datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        daemon=daemon,
        version=__version__,
        text=text,
    )


def action_name(action: str) -> str:
    """Return an action as it may be shown: a URL may hold a secret."""
    return "webhook" if "://" in action else action


def shown(value: float) -> float:
    """Return a figure as people read it: four digits, and every digit before the point."""
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")  # noqa: PLR2004


def signed_headers(key: bytes | None, name: str, body: bytes, *, at: float) -> dict[str, str]:
    """Return the header fields of an attempt to deliver a notice.

    Args:
        key: shared with the receiver; without one, nothing is signed.
        name: that of the notice, the same for each attempt.
        body: the bytes that are sent.
        at: now, Unix time in seconds: receivers refuse what is old.

    """
    timestamp = str(int(at))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"broadcasterd/{__version__}",
        "webhook-id": name,
        "webhook-timestamp": timestamp,
    }
    if key is not None:
        signed = b".".join([name.encode(), timestamp.encode(), body])
        digest = hmac.digest(key, signed, "sha256")
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


# --- the key ---------------------------------------------------------------------------------


def read_key(alerts: Alerts) -> bytes | None:
    """Return the key that signs, if there is one.

    Raises:
        ConfigError: the file cannot be read, or has no key.

    """
    path = alerts.webhook_key_file
    if path is None:
        return None
    name = f'alerts.webhook_key_file = "{path}"'
    try:
        text = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
    try:
        coded = text.startswith(_PREFIX)
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if coded else text
    except binascii.Error:
        raise ConfigError(f"{name}: expected Base64 after whsec_") from None
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(f"{name}: has {len(key)} bytes, expected {MIN_KEY_BYTES} at least")
    return key
