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
# The text of a schema, behind those that it refers to.
Texts = tuple[str, ...]


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

    def of_registry(self, facts: Mapping[str, str]) -> dict[SchemaId, Texts]:
        """Return the schemas that the run read values by; TransientError if the registry is away."""
        pairs = (item.partition("=") for item in facts.get("schemas", "").split(",") if item)
        return {_read_id(name): self._ask(name, digest) for name, _, digest in pairs}

    def _ask(self, name: str, digest: str) -> Texts:
        if self.registry is None:
            raise NoSchemaError("the schemas of the run are in a registry: give the job's --format, --schema-registry")
        # Jobs without a registry do not need its client.
        from tasks.formats.schema_registry import open_registry

        try:
            found = open_registry(self.registry).get(_read_id(name))
        except SettingsError as error:
            raise NoSchemaError(str(error)) from None
        if found is None:
            raise NoSchemaError(f"schema registry {self.registry} has no schema id {name} any more")
        if found.digest != digest:
            raise NoSchemaError(f"schema id {name} has another text in {self.registry} than when the run read it")
        return (*found.texts, found.text)


NO_SCHEMAS = Schemas()


def _read_id(name: str) -> SchemaId:
    return int(name) if name.isdigit() else UUID(name)
