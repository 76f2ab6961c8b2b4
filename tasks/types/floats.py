"""The type `float`: doubles, stored as int64 whose order is -inf < … < inf < NaN.

All NaN are equal, and so are 0 and -0. A text is the double nearest to it.
"""

import re
import struct
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.printable import excerpt
from tasks.types.base import Encoded
from tasks.types.columns import TextReader, matches, restore_nulls, trim

_NUMBER: Final = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_OVERFLOWING: Final = re.compile(rb"[ \t]*%s[ \t]*" % _NUMBER.encode())
_is_number: Final = matches(_NUMBER)
_is_name: Final = matches(r"(?i:-?(?:nan|inf|infinity))")
_MAGNITUDE: Final = 2**63 - 1


@dataclass(frozen=True)
class FloatType:
    """Reads doubles from text and from Arrow's floating-point numbers."""

    stored: pa.DataType = field(default_factory=pa.int64)
    filler: int = 0
    column: pa.DataType = field(default_factory=pa.float64)
    compares_as_column: bool = True
    is_json: bool = False

    def accepts(self, kind: pa.DataType) -> bool:
        """Take floating-point numbers beside text; integers, of which a double blurs some, are `int` or `decimal`."""
        return bool(pa.types.is_floating(kind) or pa.types.is_binary(kind))

    def encode(self, values: pa.Array) -> Encoded:
        """Return int64 that compare as the doubles do."""
        return (_order(values.cast(pa.float64())), {}) if pa.types.is_floating(values.type) else _READER.read(values)

    def show(self, stored: int) -> str:
        """Return the shortest text that is this double."""
        return repr(struct.unpack("<d", struct.pack("<q", stored if stored >= 0 else stored ^ _MAGNITUDE))[0])

    def print_all(self, stored: pa.Array) -> pa.Array:
        """Return the same for all."""
        return _print(self.to_column(stored))

    def to_column(self, stored: pa.Array) -> pa.Array:
        """Return doubles."""
        bits = np.asarray(stored.fill_null(0))
        return pa.array((bits ^ ((bits >> 63) & _MAGNITUDE)).view(np.float64), mask=np.asarray(stored.is_null()))


def _print(doubles: pa.Array) -> pa.Array:
    """Print doubles as Python does. Arrow finds the same digits, and begins exponents elsewhere."""
    texts, size = doubles.cast(pa.string()), pc.abs(doubles)
    plain = pc.or_(pc.equal(size, 0), pc.and_(pc.greater_equal(size, 1e-4), pc.less(size, 1e10)))
    point = pc.and_(plain, pc.invert(pc.match_substring(texts, ".")))
    texts = pc.if_else(point, pc.binary_join_element_wise(texts, ".0", ""), texts)
    texts = pc.replace_substring_regex(texts, r"e([+-])([0-9])$", r"e\10\2")
    between = pc.or_(
        pc.and_(pc.greater_equal(size, 1e10), pc.less(size, 1e16)),
        pc.and_(pc.greater_equal(size, 1e-8), pc.less(size, 1e-4)),
    )
    others = [repr(number) for number in doubles.filter(between).to_pylist()]
    return pc.replace_with_mask(texts, between.fill_null(False), pa.array(others, pa.string())).cast(pa.binary())


def _order(doubles: pa.Array) -> pa.Array:
    """Return the bits of doubles; those below the sign are inverted in negative ones."""
    numbers = np.asarray(doubles.fill_null(0.0))
    # The sum turns -0 into 0.
    bits = (np.where(np.isnan(numbers), np.nan, numbers) + 0.0).view(np.int64)
    return restore_nulls(bits ^ ((bits >> 63) & _MAGNITUDE), doubles)


def _cast(texts: pa.Array) -> pa.Array:
    return trim(texts).cast(pa.float64())


def _encode_all(texts: pa.Array) -> pa.Array:
    """Encode texts; pa.ArrowInvalid if one is refused.

    Arrow accepts a plus in front and `nan(…)`, and turns what overflows into infinity.
    """
    doubles = _cast(texts)
    special = _is_name(texts.filter(pc.invert(pc.is_finite(doubles))))
    if pc.any(pc.starts_with(trim(texts), "+")).as_py() or not pc.all(special, min_count=0).as_py():
        raise pa.ArrowInvalid("a plus, an overflow or another name")
    return _order(doubles)


def _is_usual(texts: pa.Array) -> pa.Array:
    numbers = _cast(pc.if_else(_is_number(texts), texts, None))
    return pc.or_(_is_name(texts), pc.is_finite(numbers).fill_null(False))


def _refuse(text: bytes) -> int:
    what = "overflows a double" if _OVERFLOWING.fullmatch(text) else "is not a float"
    raise ValueError(f"{what}: {excerpt(text)}")


_READER: Final = TextReader(pa.int64(), _encode_all, _is_usual, _refuse)
