"""Settings that do not go together, or with where the daemon listens."""

import ipaddress
from urllib.parse import urlsplit

from broadcasterd.config.problems import ConfigError
from broadcasterd.config.sections import Config, receivers


def check_exposure(config: Config) -> None:
    """Refuse to start a daemon that anyone could reach without proving who they are.

    Where tokens are asked for, the keys that verify them are checked when they are read.

    Raises:
        ConfigError: no tokens are asked for, and the address is reachable from other machines.
    """
    if config.auth.mode == "jwt" or config.auth.i_know_this_is_open:
        return
    if not is_loopback(config.server.host):
        raise ConfigError(
            f'server.host = "{config.server.host}": expected a loopback address (127.0.0.1, ::1,'
            ' localhost), because auth.mode = "none" lets everyone in; if that is meant, set'
            " auth.i_know_this_is_open = true"
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by the name or the address itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_pairs(config: Config) -> None:
    """Refuse settings that do not go together.

    Raises:
        ConfigError: naming two that do not.
    """
    memory, server, limits, log = config.memory, config.server, config.limits, config.log
    for name, url in receivers(config.alerts):
        if not _can_be_asked(url):
            raise ConfigError(f'{name}: expected a URL like "https://example.org/hook"')
    if log.file is not None and log.format == "journal":
        raise ConfigError(
            f'log.file = "{log.file}": expected log.format = "json" or "console" beside it'
        )
    for network in limits.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f'limits.trusted_proxies = "{network}": {error}') from error
    if memory.warning_mb >= memory.critical_mb:
        raise ConfigError(
            f"memory.warning_mb = {memory.warning_mb:g}: expected less than"
            f" memory.critical_mb = {memory.critical_mb:g}"
        )
    if config.engine.kind == "redis" and config.engine.url is None:
        raise ConfigError('engine.kind = "redis": expected engine.url beside it')
    for name, section in (("server", server), ("engine", config.engine)):
        if (section.tls_certificate is None) != (section.tls_key is None):
            alone, absent = ("tls_certificate", "tls_key")[:: 1 if section.tls_certificate else -1]
            raise ConfigError(
                f'{name}.{alone} = "{getattr(section, alone)}": expected {name}.{absent} beside it'
            )


def _can_be_asked(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port, or an address of IPv6, that is none
        return False
