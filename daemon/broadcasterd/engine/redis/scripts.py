"""The scripts that decide everything in Redis, each in one step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script: its text, and the digest that it is called by once a server knows it."""

    text: bytes
    digest: bytes

    @classmethod
    def read(cls, name: str) -> Script:
        """Return the one of a name, from beside this file."""
        text = files(__package__).joinpath(f"{name}.lua").read_bytes()
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


PUBLISH = Script.read("publish")
TELL = Script.read("tell")
FOLLOW = Script.read("follow")
ATTEND = Script.read("attend")
END = Script.read("end")
REVOKE = Script.read("revoke")
REVOKED = Script.read("revoked")

SCRIPTS = (PUBLISH, TELL, FOLLOW, ATTEND, END, REVOKE, REVOKED)
