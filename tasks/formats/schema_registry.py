"""Schemas of a registry, by Confluent's own client, which is imported when a job needs it.

Guarantee: a registry that is away is a transient error, one that refuses the credentials a setting to correct, and an
id that it does not know is asked for again before the run stops. A process asks for each schema once.
"""

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from uuid import UUID

from tasks.errors import SettingsError, TerminalError, TransientError
from tasks.formats.base import needing_extra
from tasks.formats.wire import SchemaId
from tasks.run_context import current_run
from tasks.settings.connection import current_connection, is_in_the_clear

# A schema that was registered a moment ago may not be on every node of the registry.
PATIENCE_SECONDS: Final = 30.0
_AGAIN_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_REFUSED, _UNKNOWN = frozenset({401, 403}), 404


class RegistryRefusedError(SettingsError):
    """The schema registry refused the credentials, or there are none and it wants some."""

    action = "Correct the credentials of the registry: `SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO` or another, or its file."


class RegistryUnavailableError(TransientError):
    """The schema registry did not answer, or answered with an error of its own."""

    action = "Nothing at first: the task is retried. Look at the registry, and at the address that the line names."


class UnknownSchemaError(TerminalError):
    """A record names a schema id that the registry does not know, also when asked again for 30 s."""

    action = (
        "Register the schema, or correct `--schema-registry`; `--unknown-schema dead-letter` makes such records dead "
        "letters."
    )


@dataclass(frozen=True)
class RegisteredSchema:
    """A schema of the registry. `kind`: AVRO, PROTOBUF or JSON.

    `references`: name and text of each schema that it uses, behind those that this one uses.
    """

    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that it refers to, each once."""
        return tuple(dict.fromkeys(text for _, text in self.references))

    @property
    def digest(self) -> str:
        """SHA-256 of the text and of what it refers to."""
        return hashlib.sha256("\0".join((self.text, *self.texts)).encode()).hexdigest()


class SchemaRegistry:
    """One registry. `properties`: those of `tasks/settings/registry.py`."""

    def __init__(self, address: str, properties: Mapping[str, str], patience: float = PATIENCE_SECONDS) -> None:
        self.address = address
        self._client = _make_client(address, properties)
        self._patience = patience
        self._known: dict[SchemaId, RegisteredSchema] = {}
        self._lock = threading.Lock()

    def check(self) -> None:
        """Ask the registry anything: an error says that it is away, or refuses the credentials."""
        self._ask(self._client.get_schema_types)

    def get(self, schema: SchemaId) -> RegisteredSchema | None:
        """Return a schema; None if the registry does not know it, and has been asked for long enough."""
        if schema in self._known:
            return self._known[schema]
        with self._lock:
            if schema not in self._known:
                found = self._find(schema, time.monotonic() + self._patience)
                if found is None:
                    return None
                self._known[schema] = found
            return self._known[schema]

    def _find(self, schema: SchemaId, deadline: float) -> RegisteredSchema | None:
        while (found := self._ask(self._fetch, schema)) is None and time.monotonic() < deadline:
            current_run().stop.wait(min(_AGAIN_SECONDS, self._patience))
        return None if found is None else self._read(found)

    def _fetch(self, schema: SchemaId) -> Any:
        if isinstance(schema, UUID):
            return self._client.get_schema_by_guid(str(schema))
        return self._client.get_schema(schema)

    def _read(self, schema: Any) -> RegisteredSchema:
        references = dict[tuple[str, str], None]()
        self._add_references(schema, references, set())
        return RegisteredSchema(schema.schema_type or "AVRO", schema.schema_str, tuple(references))

    def _add_references(self, schema: Any, found: dict[tuple[str, str], None], seen: set[tuple[str, int]]) -> None:
        for reference in schema.references or ():
            place = (reference.subject, reference.version)
            if place in seen:
                continue
            seen.add(place)
            inner = self._ask(self._client.get_version, *place)
            if inner is None:
                raise RegistryUnavailableError(f"schema registry {self.address} lacks {place[0]} version {place[1]}")
            self._add_references(inner.schema, found, seen)
            found.setdefault((reference.name, inner.schema.schema_str))

    def _ask(self, call: Any, *arguments: Any) -> Any:
        """Call the client; None if the registry does not have what was asked for."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return call(*arguments)
        except SchemaRegistryError as error:
            if error.http_status_code == _UNKNOWN:
                return None
            self._raise(error.http_status_code, error)
        # The client raises errors of the HTTP library that it was installed with.
        except Exception as error:
            what = str(error) or type(error).__name__
            raise RegistryUnavailableError(f"schema registry {self.address}: {what}") from error

    def _raise(self, status: int, error: Exception) -> None:
        what = f"schema registry {self.address}: {error}"
        if status in _REFUSED:
            raise RegistryRefusedError(f"{what}: it refuses the credentials") from None
        raise RegistryUnavailableError(what) from None


def _make_client(address: str, properties: Mapping[str, str]) -> Any:
    with needing_extra("--schema-registry", "registry"):
        from confluent_kafka.schema_registry import SchemaRegistryClient
    settings: dict[str, Any] = {"url": address, "timeout": _ANSWER_SECONDS, "max.retries": 1, **properties}
    if "bearer.auth.token" in properties:
        settings["bearer.auth.credentials.source"] = "STATIC_TOKEN"
        # The client wants the name of a cluster, which registries other than Confluent's do not look at.
        settings.setdefault("bearer.auth.logical.cluster", "")
    try:
        return SchemaRegistryClient(settings)
    except (OSError, ValueError) as error:
        raise SettingsError(f"the certificates of schema registry {address}: {error}") from None


def open_registry(address: str, patience: float = PATIENCE_SECONDS) -> SchemaRegistry:
    """Return the process's registry of that address, with the credentials of the connection in use.

    `patience`: seconds for which an unknown id is asked for again. SettingsError if the client is not installed, or
    credentials would cross a network in the clear.
    """
    connection = current_connection()
    if connection.registry and is_in_the_clear(address) and not connection.allow_plaintext:
        raise SettingsError(
            f"schema registry {address} is not on this machine, and its credentials would cross the network in the "
            "clear: use https, or permit it with --allow-plaintext (KAFKA_SORT_ALLOW_PLAINTEXT=1)"
        )
    return _open(address, tuple(sorted(connection.registry.items())), patience)


@cache
def _open(address: str, properties: tuple[tuple[str, str], ...], patience: float) -> SchemaRegistry:
    return SchemaRegistry(address, dict(properties), patience)
