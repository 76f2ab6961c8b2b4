"""Schemas that values of a run were written with: those of the job's file or its registry, if the ledger has the same.

Guarantee: a schema with another SHA-256 than that of the ledger is never used.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from tasks.errors import SettingsError

# A schema by its id, or by its GUID, which only a header has.
SchemaId = int | UUID


@dataclass(frozen=True)
class Registered:
    """A schema of a registry. `references`: name and text of those that it refers to, behind those that these do."""

    text: str
    references: tuple[tuple[str, str], ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that it refers to, each once, and its own behind them."""
        return (*dict.fromkeys(text for _, text in self.references), self.text)


class NoSchemaError(ValueError):
    """A schema of the run cannot be had; the message says which, and how to give it."""


@dataclass(frozen=True)
class Schemas:
    """The sources of schemas. `content`: of the file that the job names; `registry`: address of its schema registry."""

    content: bytes = b""
    registry: str | None = None

    def of_file(self, facts: Mapping[str, str], flags: str) -> bytes:
        """Return the schema of a run whose values are bare. NoSchemaError names the `flags` that give it."""
        if not self.content:
            raise NoSchemaError(f"the schema of the run is not given: give the job's {flags}")
        digest = hashlib.sha256(self.content).hexdigest()
        if digest != facts.get("schema"):
            raise NoSchemaError(f"the run had another schema, of SHA-256 {facts.get('schema')}: {flags} has {digest}")
        return self.content

    def of_registry(self, facts: Mapping[str, str], kind: str) -> dict[SchemaId, Registered]:
        """Return the schemas of a kind, AVRO or PROTOBUF, that the run read values and keys by.

        NoSchemaError if one cannot be had, of whatever kind; TransientError if the registry is away.
        """
        pairs = (item.partition("=") for item in facts.get("schemas", "").split(",") if item)
        found = {_read_id(name): self._ask(name, digest) for name, _, digest in pairs}
        return {name: one for name, (its_kind, one) in found.items() if its_kind == kind}

    def _ask(self, name: str, digest: str) -> tuple[str, Registered]:
        if self.registry is None:
            way = "--format or --key-format, and --schema-registry"
            raise NoSchemaError(f"the schemas of the run are in a registry: give the job's {way}")
        # Jobs without a registry do not need its client.
        from tasks.formats.schema_registry import open_registry

        try:
            found = open_registry(self.registry).get(_read_id(name))
        except SettingsError as error:
            raise NoSchemaError(str(error)) from None
        if found is None:
            raise NoSchemaError(f"schema registry {self.registry} has no schema id {name} any more")
        registered = Registered(found.text, found.references)
        if _digest(registered) != digest:
            raise NoSchemaError(f"schema id {name} has another text in {self.registry} than when the run read it")
        return found.kind, registered


NO_SCHEMAS = Schemas()


def _digest(schema: Registered) -> str:
    *references, own = schema.texts
    return hashlib.sha256("\0".join((own, *references)).encode()).hexdigest()


def _read_id(name: str) -> SchemaId:
    return int(name) if name.isdigit() else UUID(name)
