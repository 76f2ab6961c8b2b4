"""The record keys and partitions that a job's outputs must have, by record, for rows of the sample schema."""

import json
from typing import Any

from tasks.settings.job import Job
from tasks.settings.sorts import Sort

MASK = 2**32 - 1


def murmur2(key: bytes) -> int:
    """Compute Java's murmur2 without its sign, a word at a time in Python integers."""
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * 0x5BD1E995 & MASK
        h = (h * 0x5BD1E995 & MASK) ^ ((k ^ k >> 24) * 0x5BD1E995 & MASK)
    if key[whole:]:
        h = (h ^ int.from_bytes(key[whole:], "little")) * 0x5BD1E995 & MASK
    h = (h ^ h >> 13) * 0x5BD1E995 & MASK
    return (h ^ h >> 15) & 0x7FFFFFFF


def output_key(job: Job, sort: Sort, value: bytes, key: bytes | None) -> bytes | None:
    """Return the record key of an output."""
    if job.output_key != "sort":
        return key if job.output_key == "keep" else None
    fields = dict(zip(("id", "name", "address", "continent"), value.split(b","), strict=True))
    parts: list[Any] = [
        int(fields[part.column]) if part.column == "id" else fields[part.column].decode() for part in sort.by
    ]
    if len(parts) == 1:
        return str(parts[0]).encode()
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def output_partition(job: Job, key: bytes | None, source_partition: int, count: int) -> int:
    """Return the partition of an output's record; 0 where ranges decide."""
    if job.partition_by == "hash":
        return source_partition % count if key is None else murmur2(key) % count
    return source_partition if job.partition_by == "source" else 0
