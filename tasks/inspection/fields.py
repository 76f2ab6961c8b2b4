"""The fields of records besides their values: keys, headers and timestamps, as a sample has them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import one_chunk
from tasks.formats.base import RejectedError
from tasks.formats.framed import KEY
from tasks.formats.json_strict import read_document
from tasks.formats.schema_registry import SchemaRegistry
from tasks.inspection.columns import Column, describe_empty, describe_encoded, describe_texts
from tasks.inspection.framed import Framing, find_framing, find_kinds
from tasks.settings.column_types import INT, TEXT
from tasks.settings.sorts import INTEGER_KEYS

_SHOWN_HEADERS: Final = 20


@dataclass(frozen=True)
class Sizes:
    """Bytes of one part of records. `largest`: of the largest one; `mean`: over all records."""

    largest: int
    mean: float


@dataclass(frozen=True)
class Keys:
    """Record keys as a sample shows them. `kind`: for a person; `settings`: of a job that sorts by them."""

    kind: str
    column: Column
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Times:
    """Timestamps in ms. `in_order`: whether none is before the one in front of it, within each partition."""

    first: int | None
    last: int | None
    absent: int
    in_order: bool


def describe_keys(records: pa.Table, registry: SchemaRegistry | None) -> Keys:
    """Describe the keys of records."""
    column = one_chunk(records.column("key"))
    present: list[bytes] = [key for key in column.to_pylist() if key is not None]
    if not present:
        return Keys("none", describe_empty("@key", len(column), "no record has a key"))
    if framing := find_framing(records, KEY):
        return _describe_framed(column, framing, registry)
    for name, width in INTEGER_KEYS.items():
        if _are_integers(present, width):
            numbers = pa.array(
                [None if k is None else int.from_bytes(k, "big", signed=True) for k in column.to_pylist()]
            )
            return Keys(name, describe_encoded("@key", numbers.cast(pa.int64()), INT), {"key_format": name})
    described = describe_texts("@key", column)
    if all(map(_is_document, present)):
        return Keys("json", described, note="--key-format json sorts by a path into them, as @key.id")
    return Keys("text" if all(map(_is_text, present)) else "binary", described)


def _describe_framed(column: pa.Array, framing: Framing, registry: SchemaRegistry | None) -> Keys:
    kinds = find_kinds(registry, framing) if registry is not None else Counter[str]()
    kind = kinds.most_common(1)[0][0].lower() if kinds else "of a schema registry"
    way = f"--key-format {kind}" if kind in {"avro", "protobuf"} else "--schema-registry ADDRESS and --key-format"
    note = f"{framing.told}; by bytes as @key, by what they hold with {way}"
    return Keys(kind, describe_texts("@key", column, [TEXT]), note=note)


def _are_integers(keys: list[bytes], width: int) -> bool:
    """Whether keys are big-endian integers: of one width, and not all of them text."""
    return {len(key) for key in keys} == {width} and not all(map(_is_text, keys))


def _is_text(key: bytes) -> bool:
    try:
        return key.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _is_document(key: bytes) -> bool:
    if not key.lstrip().startswith((b"{", b"[")):
        return False
    try:
        read_document(key)
    except RejectedError:
        return False
    return True


def describe_times(records: pa.Table) -> Times:
    """Describe the timestamps of records, which are by partition and offset."""
    times = np.asarray(one_chunk(records.column("timestamp")))
    partitions = np.asarray(one_chunk(records.column("partition")))
    given = times >= 0
    if not given.any():
        return Times(None, None, len(times), in_order=True)
    steps = np.diff(times[given])[np.diff(partitions[given]) == 0]
    return Times(int(times[given].min()), int(times[given].max()), int((~given).sum()), bool((steps >= 0).all()))


def count_headers(records: pa.Table) -> dict[str, int]:
    """Return the names of headers, the commonest first, with the number of records that have each."""
    found: Counter[str] = Counter()
    for headers in one_chunk(records.column("headers")).to_pylist():
        found.update({header["name"] for header in headers or ()})
    return dict(found.most_common(_SHOWN_HEADERS))


def measure(records: pa.Table) -> dict[str, Sizes]:
    """Return the sizes of the parts of records: value, key and headers."""
    parts = {name: _lengths(one_chunk(records.column(name))) for name in ("value", "key")}
    return {name: _sizes(lengths) for name, lengths in {**parts, "headers": _header_lengths(records)}.items()}


def _sizes(lengths: Any) -> Sizes:
    return Sizes(int(lengths.max(initial=0)), float(lengths.mean()) if len(lengths) else 0.0)


def _lengths(column: pa.Array) -> Any:
    return np.asarray(pc.binary_length(column).fill_null(0))


def _header_lengths(records: pa.Table) -> Any:
    lists = one_chunk(records.column("headers")).to_pylist()
    return np.array([sum(len(h["name"].encode()) + len(h["value"] or b"") for h in headers or ()) for headers in lists])
