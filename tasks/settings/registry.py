"""How to reach a schema registry: credentials and certificates, from the environment or the connection's file.

In a file the properties have the prefix `schema.registry.`; as variables they are SCHEMA_REGISTRY_ and the name in
capitals, such as SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO. Guarantee: no error shows a value.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from tasks.errors import SettingsError

PREFIX: Final = "schema.registry."
_NAMES: Final = (
    "basic.auth.user.info",
    "bearer.auth.token",
    "bearer.auth.logical.cluster",
    "bearer.auth.identity.pool.id",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
)
REGISTRY_SECRETS: Final = frozenset(
    PREFIX + name for name in ("basic.auth.user.info", "bearer.auth.token", "ssl.key.password")
)
REGISTRY_FROM_ENVIRONMENT: Final = {
    f"SCHEMA_REGISTRY_{name.upper().replace('.', '_')}": PREFIX + name for name in _NAMES
}


def split_registry(properties: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the properties of Kafka, and those of the registry without their prefix.

    SettingsError names a property of the registry that is none, or does not fit the others.
    """
    kafka = {name: value for name, value in properties.items() if not name.startswith(PREFIX)}
    registry = {name.removeprefix(PREFIX): properties[name] for name in properties if name.startswith(PREFIX)}
    _check(registry)
    return kafka, registry


def _check(registry: Mapping[str, str]) -> None:
    for name in registry:
        if name == "url":
            raise SettingsError(f"{PREFIX}url is given by a job: use --schema-registry ADDRESS")
        if name not in _NAMES:
            raise SettingsError(f"there is no property {PREFIX}{name}: they are {', '.join(_NAMES)}")
    if ":" not in registry.get("basic.auth.user.info", ":"):
        raise SettingsError(f"{PREFIX}basic.auth.user.info is written USER:PASSWORD")
    if {"basic.auth.user.info", "bearer.auth.token"} <= registry.keys():
        raise SettingsError(f"{PREFIX}basic.auth.user.info and {PREFIX}bearer.auth.token: give one of them")
    if "ssl.certificate.location" not in registry and {"ssl.key.location", "ssl.key.password"} & registry.keys():
        raise SettingsError(f"{PREFIX}ssl.certificate.location is missing: a key has a certificate")


def check_address(address: str) -> str:
    """Return the address of a registry; ValueError says what is wrong with it."""
    try:
        parts = urlsplit(address)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise ValueError("is no address: write it as https://registry.example:8081") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "holds credentials, which a job must not: leave them out, and set SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"
        )
    if not fits or parts.query or parts.fragment:
        raise ValueError(f"{address!r} is no address: write it as https://registry.example:8081")
    return address
