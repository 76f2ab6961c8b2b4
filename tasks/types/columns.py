"""Columns of texts: the usual ones are encoded at once by Arrow, all others one by one.

Guarantee (equal bytes, equal fate): both ways give a text the same outcome, so it does not depend on its neighbours,
which decide the way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers
from tasks.types.base import Encoded


@dataclass(frozen=True)
class TextReader:
    """Encodes the text form of a type.

    `encode_all`: encodes texts, nulls among them, which stay null; pa.ArrowInvalid if there is one that it cannot.
    `is_usual`: tells for each text whether it can; null where null. `encode_one`: encodes one that it cannot;
    ValueError says why it is refused.
    """

    stored: pa.DataType
    encode_all: Callable[[pa.Array], pa.Array]
    is_usual: Callable[[pa.Array], pa.Array]
    encode_one: Callable[[bytes], Any]

    def read(self, texts: pa.Array) -> Encoded:
        """Encode texts (binary); null where null or refused."""
        try:
            return self.encode_all(texts), {}
        except pa.ArrowInvalid:
            return self._read_apart(texts)

    def _read_apart(self, texts: pa.Array) -> Encoded:
        usual = self.is_usual(texts).fill_null(True)
        column = self.encode_all(pc.if_else(usual, texts, None))
        rows = np.flatnonzero(~np.asarray(usual)).tolist()
        values, reasons = self._read_one_by_one(texts, rows)
        if values:
            others = pa.array([values.get(row) for row in rows], self.stored)
            column = pc.replace_with_mask(column, pc.invert(usual), others)
        return column, reasons

    def _read_one_by_one(self, texts: pa.Array, rows: list[int]) -> tuple[Mapping[int, Any], dict[int, str]]:
        values, reasons = dict[int, Any](), dict[int, str]()
        for row in rows:
            try:
                values[row] = self.encode_one(texts[row].as_py())
            except ValueError as error:
                reasons[row] = str(error)
        return values, reasons


def matches(pattern: str) -> Callable[[pa.Array], pa.Array]:
    """Return the function that tells for each text whether all of it, with blanks and tabs around, matches."""
    whole = rf"\A[ \t]*(?:{pattern})[ \t]*\z"
    return lambda texts: pc.match_substring_regex(texts, whole)


def trim(texts: pa.Array) -> pa.Array:
    """Return texts (binary) as strings without the blanks and tabs around; they need not be UTF-8."""
    # A view, not a check: what is not ASCII is refused by whatever reads the string.
    return pc.ascii_trim(texts.cast(pa.string(), safe=False), " \t")


def characters(texts: pa.Array) -> npt.NDArray[np.uint8]:
    """Return the bytes of all texts (string), one behind the other."""
    offsets, data = binary_buffers(texts.cast(pa.binary()))
    return np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]


def restore_nulls(numbers: npt.NDArray[np.int64], column: pa.Array) -> pa.Array:
    """Return numbers as a column (int64), null where `column` is."""
    return pa.array(numbers, mask=np.asarray(column.is_null()) if column.null_count else None)
