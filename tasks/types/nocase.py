"""The type `text(nocase)`: UTF-8 that compares by the bytes of each character's simple lower case.

A character becomes one character, whatever is beside it: a sigma at the end of a word becomes the same as any other,
`İ` becomes `i`, `ẞ` becomes `ß`, and `ß` is not `ss`. Which characters have a lower case is said by the version of
Unicode that Arrow has: 17 in Arrow 26.
"""

from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tasks.types.base import Encoded
from tasks.types.texts import TextType
from tasks.types.unicode_texts import unicode_reader


@dataclass(frozen=True)
class NocaseType(TextType):
    """Stores texts in lower case, and shows them so: how they were written is not stored."""

    compares_as_column: bool = False

    def encode(self, values: pa.Array) -> Encoded:
        """Return texts in lower case."""
        return _READER.read(values)


_READER: Final = unicode_reader(lambda texts: pc.utf8_lower(texts).cast(pa.binary()))
