"""The steps of a deployment in their order, and the way back.

The configuration is checked first, by the release that is to have it, and that release is started
once beside the one that serves: as long as nothing was switched, nothing has to be undone. From
then on any failure, an interruption too, leads back to the release before.
"""

from __future__ import annotations

import signal
from contextlib import suppress

from deployment import smoke
from deployment.commands import Say
from deployment.http import Client
from deployment.instance import INSTANCES, PRODUCTION, Instance
from deployment.releases import DeploymentError, Releases
from deployment.trial import rehearse

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def deploy(releases: Releases, instance: Instance, version: str, say: Say) -> None:
    """Have an instance go on with another release.

    Raises:
        DeploymentError: it does not. Where it was switched, it runs the release before again, or
            else the error says so.

    """
    before = releases.in_use(instance.link)
    if before == version:  # once more, after a deployment that was killed
        before = releases.before(version) if instance is PRODUCTION else None
    release = releases.path(version)
    instance.check_settings(release)
    if before is not None and not instance.settings_are_kept(releases.path(before)):
        with suppress(DeploymentError):  # it may be written for the new one already
            instance.check_settings(releases.path(before))
            instance.keep_settings(releases.path(before))
    try:
        rehearse(instance, release, say)
    except DeploymentError as error:
        raise DeploymentError(
            f"{version} is not deployed, and nothing was touched: {error}"
        ) from error
    say(f"{instance.name}: to {version}, and back to {before or 'nothing'} if it fails")
    try:
        if before is not None and instance is PRODUCTION:
            releases.note_before(version, before)
        _go_on_with(releases, instance, version, say)
    except BaseException as error:
        ignore_interruptions()
        say(f"{version} FAILED: {str(error) or 'interrupted'}")
        if before is not None and instance is PRODUCTION:
            releases.note_rollback(version)
        found = _go_back(releases, instance, before, say)
        raise DeploymentError(f"{version} is not deployed; {found}") from error
    for gone in releases.prune():
        say(f"removed release {gone}")
    say(f"{instance.name} runs {version}")


def rollback(releases: Releases, say: Say) -> None:
    """Have production go on with the release that was current before.

    A rollback is never undone, whatever the smoke test says: its operator knows the reason.

    Raises:
        DeploymentError: there is none, or it does not serve.

    """
    current = releases.in_use(PRODUCTION.link)
    before = None if current is None else releases.before(current)
    if current is None or before is None:
        raise DeploymentError(f"there is no release before {current}; nothing was done")
    say(f"production: back from {current} to {before}")
    if done := PRODUCTION.put_settings_back(releases.path(before)):
        say(done)
    releases.note_rollback(current)
    _go_on_with(releases, PRODUCTION, before, say)
    say(f"production runs {before}")


def install(releases: Releases, version: str) -> None:
    """Have all instances start from a release the next time that they start.

    Raises:
        DeploymentError: it is not there.

    """
    before = releases.in_use(PRODUCTION.link)
    if before not in {None, version}:
        releases.note_before(version, before)
    for instance in INSTANCES.values():
        releases.use(instance.link, version)


def check_nothing_runs(releases: Releases, version: str) -> None:
    """Refuse to put another release under instances that run: that is a deployment.

    Raises:
        DeploymentError: one runs, from another release.

    """
    for instance in INSTANCES.values():
        used = releases.in_use(instance.link)
        if used not in {None, version} and instance.is_running():
            raise DeploymentError(
                f"{instance.name} runs {used}: `make deploy-{instance.name}` has it go on with"
                f" {version}, and closes no stream; or stop it first"
            )


def ignore_interruptions() -> None:
    """Make sure that the way back is gone to its end."""
    for each in INTERRUPTIONS:
        signal.signal(each, signal.SIG_IGN)


def _go_on_with(releases: Releases, instance: Instance, version: str, say: Say) -> None:
    releases.use(instance.link, version)
    pid = instance.restart()
    client = Client(instance.url(), instance.token(releases.path(version), smoke.SESSIONS))
    smoke.run(client, smoke.smoke(version), say)
    smoke.expect(pid, instance.pid(), "the process, which should be the same all the time")
    instance.keep_settings(releases.path(version))


def _go_back(releases: Releases, instance: Instance, before: str | None, say: Say) -> str:
    """Go back to the release before, if there is one; return the outcome in words."""
    if before is None:
        return f"and {instance.name} has no release to go back to"
    try:
        if done := instance.put_settings_back(releases.path(before)):
            say(done)
        _go_on_with(releases, instance, before, say)
    except DeploymentError as error:
        return f"{instance.name} went back to {before}, WHICH FAILS AS WELL: {error}"
    return f"{instance.name} runs {before} again, as before"
