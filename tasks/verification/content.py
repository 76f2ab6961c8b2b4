"""Digests of keys and of whole records: 64 bits of XXH3, which the sorter does not use for its checksum."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_digest

Digests = npt.NDArray[np.uint64]
Headers = Sequence[tuple[str, bytes | str | None]] | None

# A record with key or headers has a digest of another kind than a value alone.
_SEED_WITH_KEY = 1


def digest_all(items: Sequence[bytes]) -> Digests:
    """Return one digest an item."""
    return np.frombuffer(b"".join(map(xxh3_64_digest, items)), ">u8").astype(np.uint64)


def digest_records(values: Sequence[bytes | None], keys: Sequence[bytes | None], headers: Sequence[Headers]) -> Digests:
    """Return one digest a record, over value, key and headers; null and empty differ."""
    if any(headers) or None in values or keys.count(None) < len(keys):
        digests = map(_digest_record, values, keys, headers)
        return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    return digest_all(values)  # type: ignore[arg-type]  # no value is None


def digest_places(partitions: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> Digests:
    """Return one digest a place."""
    pairs = np.stack([partitions, offsets], axis=1).astype(">i8").view("V16").reshape(-1).tolist()
    return digest_all(pairs)


def _digest_record(value: bytes | None, key: bytes | None, headers: Headers) -> bytes:
    if value is not None and key is None and not headers:
        return xxh3_64_digest(value)
    parts = [_framed(value), _framed(key)]
    for name, content in headers or ():
        parts += [_framed(name.encode()), _framed(content.encode() if isinstance(content, str) else content)]
    return xxh3_64_digest(b"".join(parts), _SEED_WITH_KEY)


def _framed(item: bytes | None) -> bytes:
    return b"-" if item is None else b"%d:%b" % (len(item), item)
