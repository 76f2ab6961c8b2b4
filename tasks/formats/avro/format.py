"""The format `avro`: values of a schema that the job names, without framing, or of those of a schema registry."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.errors import SettingsError
from tasks.formats.avro.decoder import Decoded, Decoder, Wanted
from tasks.formats.avro.schema import SchemaError, Type, parse_schema
from tasks.formats.avro.types import resolve_type, takes
from tasks.formats.base import parse_present
from tasks.keys import RULES, Parsed, type_columns
from tasks.settings.column_types import ColumnType
from tasks.settings.sorts import KeyColumn, format_columns, path_within


class ValueReader:
    """Reads key columns out of values of one writer's schema, whose fields alone count. `label`: a value in reasons."""

    def __init__(self, schema: Type, keys: Sequence[KeyColumn], label: str = "the value") -> None:
        self._keys, self._label = tuple(keys), label
        self._decoder = Decoder(schema, [Wanted(path_within(key.name), partial(takes, key.type)) for key in keys])

    def parse(self, values: pa.Array, starts: npt.NDArray[np.int64] | int = 0) -> Parsed:
        """Return key columns and rejects of values (binary, none null), each of which begins at its start."""
        decoded = self._decoder.decode(values, starts)
        columns = {key.name: column for key, column in zip(self._keys, decoded.columns, strict=True)}
        return type_columns(self._keys, columns, self._reject(decoded))

    def _reject(self, decoded: Decoded) -> dict[int, str]:
        rejected: dict[int, str] = {}
        # The first column that refuses a value gives the reason, and a malformed value has no columns.
        for key, missing, wrong in reversed(list(zip(self._keys, decoded.missing, decoded.wrong, strict=True))):
            if not key.nulls:
                rejected |= dict.fromkeys(np.flatnonzero(missing).tolist(), f"{key.label} is missing")
            rejected |= {
                row: f"{key.label} is no {key.type}: it is {kind} in its schema" for row, kind in wrong.items()
            }
        return rejected | {row: f"{self._label} {why}" for row, why in decoded.refused.items()}


class AvroFormat:
    """Reads bare values of one schema. `given`: the types that the job gives; other columns have the schema's.

    SettingsError if the text is no schema, or has no columns such as the job names. `where`: names the schema.
    """

    def __init__(
        self, schema: bytes, keys: Sequence[KeyColumn], given: Mapping[str, ColumnType], where: str = "--avro-schema"
    ) -> None:
        kind = load_schema(schema, where)
        self.keys = tuple(replace(key, type=resolve_type([kind], key.name, given.get(key.name))) for key in keys)
        self._reader = ValueReader(kind, self.keys)
        self._digest = hashlib.sha256(schema).hexdigest()

    def parse(self, records: pa.Table) -> Parsed:
        """Return key columns and rejects of a block of records."""
        return parse_present(one_chunk(records.column("value")), self._reader.parse)

    def facts(self) -> Mapping[str, str]:
        """Return the columns with their types, and the digest of the schema."""
        columns = format_columns({key.name: key.type for key in self.keys}, omit=None)
        return {"name": "avro", "columns": columns, "schema": self._digest, "rules": RULES}


def load_schema(text: bytes, where: str) -> Type:
    """Read a schema; SettingsError says what is wrong with it."""
    try:
        return parse_schema(text.decode())
    except (SchemaError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where} is no Avro schema: {error}") from None
