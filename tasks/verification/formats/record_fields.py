"""The fields that a record has besides its value: key, timestamp, partition, offset and headers."""

from collections.abc import Callable, Sequence
from typing import Any

from tasks.verification.formats.base import Columns, FormatReader, Request, Wanted
from tasks.verification.reading import Block
from tasks.verification.types.base import scatter

ReadKeys = Callable[[Block], Columns]
# Kafka's own serializers of integers: their length in bytes.
_WIDTHS = {"int32": 4, "int64": 8}


class RecordFields:
    """Reads record fields. `make_reader`: of formats that record keys may have besides Kafka's own ones."""

    def __init__(self, request: Request, make_reader: Callable[[str, Request], FormatReader]) -> None:
        self._wanted = request.columns
        of_keys = [wanted for wanted in self._wanted if wanted.column.field == "@key"]
        keys = Request(request.facts, of_keys, "key", request.schemas)
        self._read_keys = _make_key_reader(keys, make_reader) if keys.columns else None

    def read(self, block: Block) -> Columns:
        """Return the fields of the block, integers as numbers."""
        keys = self._read_keys(block) if self._read_keys else Columns([])
        found, rest = iter(keys.columns), block.without(sorted(keys.refused))
        columns = [next(found) if w.column.field == "@key" else _read_field(rest, w) for w in self._wanted]
        return Columns(columns, keys.refused)


def _read_field(block: Block, wanted: Wanted) -> list[Any]:
    match wanted.column.field:
        case "@timestamp":
            return [time if time >= 0 else None for time in block.times().tolist()]
        case "@partition":
            return [block.partition] * len(block)
        case "@offset":
            return list(block.offsets.tolist())
        case _:
            return _read_header(block, str(wanted.column.path[0]))


def _read_header(block: Block, name: str) -> list[bytes | None]:
    """Return the last header of that name of each record."""
    found = [dict(headers).get(name) if headers else None for headers in block.headers]
    return [content.encode() if isinstance(content, str) else content for content in found]


def _make_key_reader(request: Request, make_reader: Callable[[str, Request], FormatReader]) -> ReadKeys:
    name = request.facts.get("key_format", "text")
    if name == "text" or name in _WIDTHS:
        width = _WIDTHS.get(name, 0)
        return lambda block: _repeat(_read_integers(block.keys, width) if width else Columns([block.keys]), request)
    reader = make_reader(name, request)
    return lambda block: _read_present(block, reader)


def _repeat(columns: Columns, request: Request) -> Columns:
    return Columns(list(columns.columns) * len(request.columns), columns.refused)


def _read_integers(keys: Sequence[bytes | None], width: int) -> Columns:
    refused = {i for i, key in enumerate(keys) if key is not None and len(key) != width}
    good = (key for i, key in enumerate(keys) if i not in refused)
    return Columns([[None if key is None else int.from_bytes(key, "big", signed=True) for key in good]], refused)


def _read_present(block: Block, reader: FormatReader) -> Columns:
    """Read the keys of a format; a key that is null is no document that could be refused."""
    present = [i for i, key in enumerate(block.keys) if key is not None]
    found = reader.read([block.keys[i] for i in present], [block.headers[i] for i in present])
    refused = {present[i] for i in found.refused}
    kept = [i for i in range(len(block)) if i not in refused]
    at = [to for to, i in enumerate(kept) if block.keys[i] is not None]
    return Columns([scatter(len(kept), at, column, None) for column in found.columns], refused)
