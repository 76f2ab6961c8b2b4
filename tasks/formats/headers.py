"""Headers of records, a block at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def find_header(headers: pa.Array, name: str) -> pa.Array:
    """Return for each record (type HEADERS) the value of the last header of a name; null if it has none, or a null."""
    if headers.null_count == len(headers):
        return pa.nulls(len(headers), pa.binary())
    items = headers.flatten()
    named = pc.equal(pc.struct_field(items, "name"), name)
    owners = np.asarray(pc.list_parent_indices(headers).filter(named))
    # Items are in the order of their records: behind the last one of a record stands another record's, or nothing.
    is_last = np.append(owners[1:] != owners[:-1], [True] * (len(owners) > 0)).astype(bool)
    rows = np.full(len(headers), -1)
    rows[owners[is_last]] = np.flatnonzero(is_last)
    return pc.struct_field(items, "value").filter(named).take(pa.array(rows, mask=rows < 0))
