"""Formats of record keys: how `@key` is read. One line for each in the registry; a job names its own.

Guarantee: the outcome of a key depends on its own bytes only.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers
from tasks.formats.json_reader import JsonReader
from tasks.settings.job import Job
from tasks.settings.sorts import INTEGER_KEYS, KeyColumn, record_field

# Columns by name, as long as the block, null where a record has no such key; and index → reason of the malformed keys.
RawColumns = tuple[dict[str, pa.Array], dict[int, str]]


class KeyFormat(Protocol):
    """One way to read key columns out of record keys: `@key` itself, and `@key.PATH` where keys have fields."""

    def read(self, keys: pa.Array, columns: Sequence[KeyColumn]) -> RawColumns:
        """Read columns out of a block's keys (binary, some null). A column is text (binary), or of a native Arrow type.

        A null key is null in all columns. A reason stands in a dead letter as it is.
        """


class TextKeys:
    """Takes the bytes of keys as they are, for any type to read as text."""

    def read(self, keys: pa.Array, columns: Sequence[KeyColumn]) -> RawColumns:
        """Return the keys."""
        return {column.name: keys for column in columns}, {}


class IntegerKeys:
    """Reads keys as Kafka's own serializers of integers write them: big-endian, exactly 4 or 8 bytes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._width = INTEGER_KEYS[name]

    def read(self, keys: pa.Array, columns: Sequence[KeyColumn]) -> RawColumns:
        """Return int64; keys of another length are malformed."""
        lengths = np.asarray(pc.binary_length(keys).fill_null(-1))
        fit = lengths == self._width
        offsets, data = binary_buffers(keys if fit.all() else keys.filter(pa.array(fit)))
        numbers = np.zeros(len(keys), np.int64)
        if data is not None:
            text = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
            numbers[fit] = text.view(f">i{self._width}")
        odd = np.flatnonzero(~fit & (lengths >= 0)).tolist()
        read = pa.array(numbers, mask=~fit)
        return {column.name: read for column in columns}, {row: self._explain(int(lengths[row])) for row in odd}

    def _explain(self, length: int) -> str:
        return f"@key is no {self._name}: {length} byte{'s' if length != 1 else ''}"


class JsonKeys:
    """Reads keys that are JSON documents: `@key` is the document, which then is a string or a number."""

    def __init__(self) -> None:
        self._readers: dict[tuple[KeyColumn, ...], JsonReader] = {}

    def read(self, keys: pa.Array, columns: Sequence[KeyColumn]) -> RawColumns:
        """Return texts at paths; keys that are not JSON, or hold no such key, are malformed."""
        wanted = tuple(columns)
        if wanted not in self._readers:
            self._readers[wanted] = JsonReader(wanted, [record_field(column.name)[1] for column in wanted], "@key")
        return self._readers[wanted].read(keys)


_MAKERS: Final[dict[str, Callable[[Job], KeyFormat]]] = {
    "text": lambda _: TextKeys(),
    "int32": lambda _: IntegerKeys("int32"),
    "int64": lambda _: IntegerKeys("int64"),
    "json": lambda _: JsonKeys(),
}


def make_key_format(job: Job) -> KeyFormat:
    """Make the format of the job's keys."""
    return _MAKERS[job.key_format](job)
