"""The type `text`: bytes, stored as they are."""

from dataclasses import dataclass, field

import pyarrow as pa

from tasks.types.base import Encoded


@dataclass(frozen=True)
class TextType:
    """Compares bytes, whatever they are."""

    stored: pa.DataType = field(default_factory=pa.binary)
    filler: bytes = b""
    is_json: bool = False
    column: pa.DataType = field(default_factory=pa.string)
    compares_as_column: bool = True

    def accepts(self, kind: pa.DataType) -> bool:
        """Take bytes alone."""
        return bool(pa.types.is_binary(kind))

    def encode(self, values: pa.Array) -> Encoded:
        """Return the values."""
        return values, {}

    def show(self, stored: bytes) -> str:
        """Return the text; bytes that are not UTF-8 appear as escapes."""
        return stored.decode("utf-8", "backslashreplace")

    def print_all(self, stored: pa.Array) -> pa.Array:
        """Return the bytes of the texts, also of those that are not UTF-8."""
        return stored

    def to_column(self, stored: pa.Array) -> pa.Array:
        """Return strings; ArrowInvalid if one is not UTF-8."""
        return stored.cast(pa.string())
