"""Records whose values and keys name their schemas, as a block of a dump has them."""

from collections.abc import Sequence

import pyarrow as pa

from tasks.arrow import HEADERS, RECORD

Headers = list[tuple[str, bytes]] | None


def framed(schema: int, payload: bytes) -> bytes:
    return b"\0" + schema.to_bytes(4, "big") + payload


def records(
    values: Sequence[bytes | None],
    headers: Sequence[Headers] | None = None,
    keys: Sequence[bytes | None] | None = None,
) -> pa.Table:
    count = len(values)
    given = [None if h is None else [{"name": n, "value": v} for n, v in h] for h in headers or [None] * count]
    return pa.table(
        {
            "value": pa.array(values, pa.binary()),
            "key": pa.array(keys or [None] * count, pa.binary()),
            "headers": pa.array(given, HEADERS),
            "timestamp": pa.array([0] * count, pa.int64()),
            "partition": pa.array([3] * count, RECORD.field("partition").type),
            "offset": pa.array(range(7, 7 + count), pa.int64()),
        },
        RECORD,
    )
