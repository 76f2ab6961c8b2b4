"""The JSON tokens each key type takes, and the text that its encoder is given for one.

Tokens are columns of JSON texts, null where a value is missing; a null of JSON and a missing value give no key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers
from tasks.settings.column_types import ColumnType

Mask = npt.NDArray[np.bool_]
_DIGITS = ord("0"), ord("9")
_INTEGER: Final = r"\A-?[0-9]+\z"


@dataclass(frozen=True)
class Kind:
    """The tokens that a type takes. `refusal`: goes on after the column's name, and is followed by the token."""

    name: str
    refusal: str


def kind_of(type_: ColumnType) -> Kind:
    """Return the tokens that a type takes: strings, or numbers with or without a fraction, or true and false."""
    return _KINDS["ticks" if type_.name == "time" and type_.parameter else type_.name]


_KINDS: Final[Mapping[str, Kind]] = {
    "int": Kind("integer", "is not an integer"),
    "decimal": Kind("number", "is not a decimal"),
    "float": Kind("number", "is not a float"),
    "bool": Kind("bool", "is not a bool"),
    "time": Kind("string", "is not a time"),
    "ticks": Kind("integer", "is not an integer"),
    "uuid": Kind("string", "is not a uuid"),
    "text": Kind("string", "is not a string"),
}


class Tokens:
    """A column of tokens: JSON texts (string), null where a value is missing."""

    def __init__(self, texts: pa.Array) -> None:
        self.texts = texts
        self.present = np.asarray(texts.is_valid()) if texts.null_count else np.ones(len(texts), np.bool_)
        self._offsets, data = binary_buffers(texts.view(pa.binary()))
        self._data = np.frombuffer(b"" if data is None else data, np.uint8)
        self.starts = self._start()

    def _start(self) -> npt.NDArray[np.uint8]:
        """Return the first byte of each token; 0 where it is missing."""
        if not len(self._data):
            return np.zeros(len(self.texts), np.uint8)
        first = self._data[np.minimum(self._offsets[:-1], len(self._data) - 1)]
        return first if self.present.all() else np.where(self.present, first, np.uint8(0))

    @property
    def nulls(self) -> Mask:
        """Find the tokens that are null."""
        return np.asarray(self.starts == ord("n"))

    def fit(self, kind: Kind) -> Mask:
        """Find tokens of the kind."""
        return _FITTING[kind.name](self)

    def are_digits(self) -> bool:
        """Whether all tokens are certainly integers."""
        text = self._data[self._offsets[0] : self._offsets[-1]]
        return not bool(np.any((text - np.uint8(_DIGITS[0]) > 9) & (text != ord("-"))))

    def are_integers(self) -> Mask:
        """Find integers without a fraction or an exponent."""
        if self.are_digits():
            return self.present
        return np.asarray(pc.match_substring_regex(self.texts, _INTEGER).fill_null(False))

    def are_strings(self) -> Mask:
        """Find strings."""
        return np.asarray(self.starts == ord('"'))

    def are_bools(self) -> Mask:
        """Find true and false."""
        return np.asarray((self.starts == ord("t")) | (self.starts == ord("f")))

    def are_zeros(self) -> Mask:
        """Find the integer 0."""
        return np.asarray(pc.equal(self.texts, "0").fill_null(False))

    def are_numbers(self) -> Mask:
        """Find numbers."""
        return np.asarray((self.starts - np.uint8(_DIGITS[0]) <= 9) | (self.starts == ord("-")))


_FITTING: Final[Mapping[str, Callable[[Tokens], Mask]]] = {
    "integer": Tokens.are_integers,
    "number": Tokens.are_numbers,
    "bool": Tokens.are_bools,
    "string": Tokens.are_strings,
}


def unquote_tokens(texts: pa.Array, strings: Mask, unescape: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return the bytes of strings (binary), and null for other tokens. `unescape` reads those with escapes."""
    # A null may have bytes; each of these has its two quotes.
    quoted = texts if strings.all() else pc.if_else(pa.array(strings), texts, '""')
    offsets, data = binary_buffers(quoted.view(pa.binary()))
    text = np.frombuffer(b"" if data is None else data, np.uint8)[offsets[0] : offsets[-1]]
    edges = (offsets - offsets[0]).astype(np.int64)
    inner = np.delete(text, np.concatenate([edges[:-1], edges[1:] - 1]))
    bounds = (edges - 2 * np.arange(len(edges))).astype(np.int32)
    valid = None if strings.all() else pa.py_buffer(np.packbits(strings, bitorder="little"))
    buffers = [valid, pa.py_buffer(bounds), pa.py_buffer(inner)]
    values = pa.Array.from_buffers(pa.binary(), len(texts), buffers)
    if ord("\\") not in inner.tobytes():
        return values
    escaped = pc.match_substring(quoted, "\\")
    return pc.replace_with_mask(values, escaped, unescape(quoted.filter(escaped)))
