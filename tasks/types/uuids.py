"""The type `uuid`: 16 bytes, stored as they are; they compare as unsigned bytes."""

import binascii
import uuid
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.printable import excerpt
from tasks.types.base import Encoded
from tasks.types.columns import TextReader, characters, matches, trim

_SIZE: Final = 16
_BARE: Final = 2 * _SIZE
_DASHES: Final = (8, 13, 18, 23)
_FORM: Final = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}"


@dataclass(frozen=True)
class UuidType:
    """Reads 32 hexadecimal digits, with the four dashes or without, and Arrow's binary of 16 bytes."""

    stored: pa.DataType = field(default_factory=pa.binary)
    filler: bytes = b""
    column: pa.DataType = field(default_factory=pa.uuid)
    compares_as_column: bool = True
    is_json: bool = False

    def accepts(self, kind: pa.DataType) -> bool:
        """Take binary of the fixed size of 16 bytes beside text."""
        return bool(kind == pa.binary(_SIZE) or pa.types.is_binary(kind))

    def encode(self, values: pa.Array) -> Encoded:
        """Return the 16 bytes."""
        return _READER.read(values) if pa.types.is_binary(values.type) else (values.cast(pa.binary()), {})

    def show(self, stored: bytes) -> str:
        """Return the digits in groups of 8, 4, 4, 4 and 12."""
        return str(uuid.UUID(bytes=stored))

    def print_all(self, stored: pa.Array) -> pa.Array:
        """Return the same for all."""
        present = stored.drop_null()
        digits = np.frombuffer(binascii.hexlify(characters(present).data), np.uint8).reshape(-1, _BARE)
        printed = np.full((len(digits), _BARE + len(_DASHES)), ord("-"), np.uint8)
        printed[:, np.setdiff1d(np.arange(printed.shape[1]), _DASHES)] = digits
        found = pa.Array.from_buffers(
            pa.binary(printed.shape[1]), len(printed), [None, pa.py_buffer(printed.tobytes())]
        )
        return _spread(found.cast(pa.binary()), stored)

    def to_column(self, stored: pa.Array) -> pa.Array:
        """Return an array of Arrow's type for uuids."""
        return pa.ExtensionArray.from_storage(self.column, stored.cast(self.column.storage_type))


def _encode_all(texts: pa.Array) -> pa.Array:
    """Encode texts; pa.ArrowInvalid if one is refused."""
    trimmed = trim(texts).drop_null()
    bare = pc.replace_substring(trimmed, "-", "")
    if not (_has_lengths(bare, {_BARE}) and _has_lengths(trimmed, {_BARE, _BARE + len(_DASHES)}) and _dashed(trimmed)):
        raise pa.ArrowInvalid("another length, or a dash elsewhere")
    try:
        data = binascii.unhexlify(characters(bare).data)
    except binascii.Error as error:
        raise pa.ArrowInvalid(str(error)) from None
    found = pa.Array.from_buffers(pa.binary(_SIZE), len(bare), [None, pa.py_buffer(data)]).cast(pa.binary())
    return _spread(found, texts) if texts.null_count else found


def _has_lengths(texts: pa.Array, lengths: set[int]) -> bool:
    return set(pc.unique(pc.binary_length(texts)).to_pylist()) <= lengths


def _dashed(texts: pa.Array) -> bool:
    """Whether the texts with dashes have them in their places."""
    lengths = np.asarray(pc.binary_length(texts))
    starts = (np.cumsum(lengths) - lengths)[lengths > _BARE]
    data = characters(texts)
    return all((data[starts + place] == ord("-")).all() for place in _DASHES)


def _spread(found: pa.Array, texts: pa.Array) -> pa.Array:
    """Return the values found in the rows that are not null."""
    return pc.replace_with_mask(pa.nulls(len(texts), pa.binary()), texts.is_valid(), found)


def _refuse(text: bytes) -> bytes:
    raise ValueError(f"is not a uuid: {excerpt(text)}")


_READER: Final = TextReader(pa.binary(), _encode_all, matches(_FORM), _refuse)
