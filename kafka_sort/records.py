"""Records on standard output, in the forms of `kafka-sort get` and `kafka-sort read`; no Python object a record."""

import base64
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kafka_sort.streams import is_output_lost, widen_output
from tasks.arrow import binary_buffers
from tasks.json_arrays import quote_texts
from tasks.types.unicode_texts import is_utf8

_PLACE: Final = ("timestamp", "run", "partition", "offset")
# So many rows are formed and written at once.
_WRITTEN_ROWS: Final = 50_000
_LINE_BREAK: Final = pa.array([b"\n"], pa.binary())


def print_records(blocks: Iterator[pa.Table], form: str, limit: int | None = None) -> int:
    """Print the records, at most `limit`, in the form `jsonl`, `raw` or `csv`; return how many were printed.

    It ends early if the reader of standard output has gone.
    """
    widen_output()
    printed = 0
    for rows in blocks:
        wanted = rows if limit is None else rows.slice(0, limit - printed)
        for batch in filter(len, wanted.to_batches(_WRITTEN_ROWS)):
            _write(*_FORMS[form](batch))
        printed += len(wanted)
        if printed == limit or is_output_lost():
            break
    return printed


def _write(*parts: pa.Array) -> None:
    """Write texts that have their line breaks: they lie one behind the other already."""
    for texts in parts:
        offsets, data = binary_buffers(texts)
        if data is not None:
            sys.stdout.buffer.write(memoryview(data)[offsets[0] : offsets[-1]])
    sys.stdout.buffer.flush()


def _raw(rows: pa.RecordBatch) -> Sequence[pa.Array]:
    # One long text with a line break between each two values takes half the time of many with one behind each.
    values = _column(rows, "value").fill_null(b"")
    whole = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    return pc.binary_join(whole, b"\n"), _LINE_BREAK


def _csv(rows: pa.RecordBatch) -> Sequence[pa.Array]:
    cells: list[pa.Array | bytes] = []
    for name in ("key", "value"):
        cells += [_quote_cell(_column(rows, name)), b","]
    for name in _PLACE:
        cells += [_numbers(rows, name), b","]
    return (_join([*cells[:-1], b"\n"]),)


def _quote_cell(texts: pa.Array) -> pa.Array:
    """Put texts in quotes, so that an empty one is no null, which is an empty field."""
    quoted = pc.replace_substring(texts, b'"', b'""')
    return _join([b'"', quoted, b'"']).fill_null(b"")


def _jsonl(rows: pa.RecordBatch) -> Sequence[pa.Array]:
    parts: list[pa.Array | bytes] = [b'{"key":', _json_texts(_column(rows, "key"))]
    parts += [b',"value":', _json_texts(_column(rows, "value")), b',"headers":', _json_headers(rows)]
    for name in _PLACE:
        parts += [f',"{name}":'.encode(), _numbers(rows, name)]
    return (_join([*parts, b"}\n"]),)


def _json_texts(texts: pa.Array) -> pa.Array:
    """Return texts as JSON strings; as an object with base64 those that are not UTF-8."""
    odd = np.flatnonzero(np.asarray(pc.invert(is_utf8(texts)).fill_null(False)))
    if not len(odd):
        return quote_texts(texts).fill_null(b"null")
    mask = np.zeros(len(texts), np.bool_)
    mask[odd] = True
    plain = quote_texts(pc.if_else(pa.array(mask), pa.scalar(b"", pa.binary()), texts))
    marked = [_base64(texts[row].as_py()) for row in odd.tolist()]
    return pc.replace_with_mask(plain, pa.array(mask), pa.array(marked, pa.binary())).fill_null(b"null")


def _base64(text: bytes) -> bytes:
    return b'{"base64":"' + base64.b64encode(text) + b'"}'


def _json_headers(rows: pa.RecordBatch) -> pa.Array:
    """Return the headers of records as JSON arrays of objects with `name` and `value`."""
    headers = _column(rows, "headers")
    if headers.null_count == len(headers):
        return pa.array([b"[]"] * len(headers), pa.binary())
    flat = headers.flatten()
    names, values = (flat.field(i).cast(pa.binary()) for i in range(2))
    each = _join([b'{"name":', _json_texts(names), b',"value":', _json_texts(values), b"}"])
    lengths = np.asarray(pc.list_value_length(headers).fill_null(0))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return _join([b"[", pc.binary_join(pa.ListArray.from_arrays(offsets, each), b","), b"]"])


def _column(rows: pa.RecordBatch, name: str) -> pa.Array:
    return rows.column(name)


def _numbers(rows: pa.RecordBatch, name: str) -> pa.Array:
    return _column(rows, name).cast(pa.string()).cast(pa.binary())


def _join(parts: list[Any]) -> pa.Array:
    return pc.binary_join_element_wise(*parts, b"")


_FORMS: Final[dict[str, Callable[[pa.RecordBatch], Sequence[pa.Array]]]] = {"jsonl": _jsonl, "raw": _raw, "csv": _csv}
FORMS: Final = tuple(_FORMS)
# The columns that a form takes.
COLUMNS: Final = {"jsonl": ("key", "value", "headers", *_PLACE), "csv": ("key", "value", *_PLACE), "raw": ("value",)}
