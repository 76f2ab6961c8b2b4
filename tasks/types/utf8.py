"""The type `text(utf8)`: UTF-8 that compares by its bytes, stored as it is. A job that writes files reads texts so."""

from typing import Final

import pyarrow as pa

from tasks.types.base import Encoded
from tasks.types.texts import TextType
from tasks.types.unicode_texts import unicode_reader


class Utf8Type(TextType):
    """Compares bytes, which must be UTF-8."""

    def encode(self, values: pa.Array) -> Encoded:
        """Return the values."""
        return _READER.read(values)


_READER: Final = unicode_reader(lambda texts: texts.cast(pa.binary()))
