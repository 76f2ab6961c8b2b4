"""The types `text(de)`, `text(sv)` and so on: UTF-8 that compares by an ICU collation, stored as ICU's sort key.

The keys are those of the ICU that DuckDB has: another version of DuckDB may order some texts in another way.
"""

from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.database import open_cursor
from tasks.types.base import Encoded
from tasks.types.texts import TextType
from tasks.types.unicode_texts import unicode_reader


@dataclass(frozen=True)
class CollatedType(TextType):
    """Stores the sort keys of texts. `collation`: a name that DuckDB's ICU has."""

    compares_as_column: bool = False
    collation: str = field(kw_only=True)

    def encode(self, values: pa.Array) -> Encoded:
        """Return ICU's sort keys."""
        return unicode_reader(partial(_sort_keys, self.collation.lower())).read(values)

    def show(self, stored: bytes) -> str:
        """Return the sort key in hexadecimal digits: the text itself cannot be had from it."""
        return stored.hex()


def _sort_keys(collation: str, texts: pa.Array) -> pa.Array:
    table = pa.table({"texts": texts})
    with open_cursor() as connection:
        # ICU's keys come as hexadecimal text. A collation's name has letters and underscores only.
        keys = connection.from_arrow(table).project(f"unhex(icu_sort_key(texts, '{collation}')) AS keys")
        return one_chunk(keys.to_arrow_table().column("keys"))
