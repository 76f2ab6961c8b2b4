"""Texts that must be UTF-8, and the reason of those that are not."""

from collections.abc import Callable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tasks.printable import excerpt
from tasks.types.columns import TextReader

# The well-formed byte sequences of the Unicode standard, table 3-7.
_UTF8: Final = (
    r"(?s)\A(?:[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    r"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
    r")*\z"
)


def unicode_reader(encode: Callable[[pa.Array], pa.Array]) -> TextReader:
    """Return the reader that encodes texts by `encode`, from strings to binary."""
    return TextReader(pa.binary(), lambda texts: encode(texts.cast(pa.string())), is_utf8, _refuse)


def is_utf8(texts: pa.Array) -> pa.Array:
    """Tell for each text (binary) whether it is UTF-8; null where null."""
    # Arrow matches binary byte by byte.
    return pc.match_substring_regex(texts, _UTF8)


def _refuse(text: bytes) -> bytes:
    raise ValueError(f"is not UTF-8: {excerpt(text)}")
