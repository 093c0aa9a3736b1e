"""The kinds of values that settings have, each with its unit and bounds in words."""

import os
from typing import Annotated, Literal

from msgspec import Meta
from typing_extensions import override

MiB = 1024 * 1024


# An error message takes the description for what was expected.
Seconds = Annotated[
    float, Meta(gt=0, description='a number of seconds above 0, or a duration like "10m"')
]
# A browser that is told of more than a day would never come back in practice.
Milliseconds = Annotated[
    int,
    Meta(
        gt=0,
        le=86_400_000,
        description='milliseconds from 1 to 86400000, which is a day, or a duration like "3s"',
    ),
]
Megabytes = Annotated[
    float, Meta(gt=0, description='a number of megabytes above 0, or a size like "1GiB"')
]
Bytes = Annotated[
    int, Meta(gt=0, description='a whole number of bytes above 0, or a size like "64KiB"')
]
Count = Annotated[int, Meta(gt=0, description="a whole number above 0")]
Share = Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")]
# Anything slower would have a client wait for hours, or for ever.
Rate = Annotated[float, Meta(ge=0.001, description="a number per second from 0.001")]
Leeway = Annotated[
    float,
    Meta(ge=0, le=300, description='a number of seconds from 0 to 300, or a duration like "1m"'),
]
Span = Annotated[
    float, Meta(ge=0, description='a number of seconds from 0, or a duration like "10m"')
]
Port = Annotated[int, Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Text = Annotated[str, Meta(min_length=1, description="a string that is not empty")]
# As a browser sends it, but for the port and for capitals. With a path, a trailing slash, or
# letters that are not ASCII, it would never match, so it is refused.
Origin = Annotated[
    str,
    Meta(
        pattern=r"^(\*|https?://((\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)\Z",
        description='origins like "https://example.org" or "https://*.example.org"',
    ),
]
Token = Annotated[
    str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", description="names of HTTP, like X-Name")
]
# In lower case, as they are compared; a port does not matter.
HostName = Annotated[
    str, Meta(pattern=r"^(\*|[a-z0-9._-]+)$", description='host names like "events.example.org"')
]
# Checked by `check_pairs`: a pattern could not tell an address from a typing error.
Network = Annotated[str, Meta(min_length=2, description='networks like "10.0.0.0/8" or "::1"')]
RuleName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z",
        description="a name of up to 64 letters, digits, _, . and -",
    ),
]
# Whether it is a URL that can be asked is seen when the webhooks are made.
Receiver = Annotated[
    str,
    Meta(
        pattern=r"^(journal|https?://\S+)\Z",
        description='"journal", or a URL like "https://example.org/hook"',
    ),
]
AlertAction = Annotated[
    str,
    Meta(
        pattern=r"^(journal|notify_team|page_on_call|https?://\S+)\Z",
        description=(
            '"journal", "notify_team", "page_on_call", or a URL like "https://example.org/hook"'
        ),
    ),
]
Threshold = Annotated[
    Annotated[float, Meta(gt=0)] | Literal["memory.warning_mb", "memory.critical_mb"],
    Meta(description='a number above 0, "memory.warning_mb" or "memory.critical_mb"'),
]
Hold = Annotated[
    float, Meta(ge=0, description='a number of seconds from 0, or a duration like "5m"')
]
# Braces would say which slot of a Cluster a key is in; spaces separate keys in an ACL.
KeyPrefix = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}\Z",
        description="up to 64 letters, digits, _, ., : and -",
    ),
]
Replicas = Annotated[int, Meta(ge=0, le=10, description="a whole number from 0 to 10")]
# "none" is missing on purpose: a token that nobody signed proves nothing.
Algorithm = Literal[
    "HS256", "HS384", "HS512",
    "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512",
    "EdDSA",
]  # fmt: skip


class Secret:
    """A variable's value that does not show itself.

    Attributes:
        content: its bytes, as they are in the environment.
    """

    __slots__ = ("content",)

    def __init__(self, text: str) -> None:
        self.content = os.fsencode(text)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.content == other.content

    @override
    def __hash__(self) -> int:
        return hash(self.content)

    @override
    def __repr__(self) -> str:
        return "Secret()"
