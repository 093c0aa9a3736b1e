"""`token`: signs one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click

from broadcasterd.access.grants import Grant
from broadcasterd.cli.options import config_option, settings
from broadcasterd.config import Auth


@click.command()
@click.option("--subscribe", multiple=True, metavar="GLOB", help="Sessions to listen to.")
@click.option(
    "--publish", "publish_", multiple=True, metavar="GLOB", help="Sessions to publish to."
)
@click.option("--admin", is_flag=True, help="May list sessions and end a subject's streams.")
@click.option("--subject", help="Whom the token is for (its `sub` claim).")
@click.option(
    "--ttl",
    default=3600,
    show_default=True,
    type=click.IntRange(min=1),
    help="Seconds until it expires.",
)
@click.option("--kid", help="Sign with this secret of auth.jwks_file instead.")
@config_option
def token(
    *,
    subscribe: tuple[str, ...],
    publish_: tuple[str, ...],
    admin: bool,
    subject: str | None,
    ttl: int,
    kid: str | None,
    config_file: Path | None,
) -> None:
    """Print a token, signed with the secret in force, or with one of auth.jwks_file (--kid).

    A GLOB is a session's name, in which * stands for any run of characters. --subscribe and
    --publish may be given more than once.
    """
    if not (subscribe or publish_ or admin):
        raise click.UsageError("A token without --subscribe, --publish or --admin opens nothing.")
    granted = {"subscribe": subscribe, "publish": publish_, "admin": admin}
    claims = {"broadcaster": granted} | ({} if subject is None else {"sub": subject})
    try:
        Grant.from_claims(claims)
    except ValueError as error:
        raise click.UsageError(f"The daemon would refuse this token: {error}.") from error
    click.echo(sign(settings(config_file).auth, claims, ttl=ttl, kid=kid))


def sign(auth: Auth, claims: Mapping[str, object], *, ttl: int, kid: str | None = None) -> str:
    """Sign a token that the daemon of this configuration accepts for `ttl` seconds."""
    import jwt

    from broadcasterd.access.key_files import signing_key

    algorithm, secret = signing_key(auth, kid)
    now = int(time.time())
    asked = {"aud": auth.audience, "iss": auth.issuer}
    asked = {claim: value for claim, value in asked.items() if value is not None}
    return jwt.encode(
        {**claims, **asked, "iat": now, "exp": now + ttl},
        secret,
        algorithm,
        headers=None if kid is None else {"kid": kid},
    )
