"""Digests of keys and of whole records: 64 bits of XXH3, which the sorter does not use for its checksum."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_digest

Digests = npt.NDArray[np.uint64]
Headers = Sequence[tuple[str, bytes | str | None]] | None

# Odd factors: value, key and headers change a digest each in its own way.
_KEY, _HEADERS = np.uint64(0x9FB21C651E98DF25), np.uint64(0xD6E8FEB86659FD93)
_NULL = np.uint64(0xA0761D6478BD642F)


def digest_all(items: Sequence[bytes]) -> Digests:
    """Return one digest an item."""
    return np.frombuffer(b"".join(map(xxh3_64_digest, items)), ">u8").astype(np.uint64)


def digest_records(values: Sequence[bytes | None], keys: Sequence[bytes | None], headers: Sequence[Headers]) -> Digests:
    """Return one digest a record, over value, key and headers; null and empty differ."""
    digests = _digest_present(values)
    if keys.count(None) < len(keys):
        # Without a key a digest is that of the value, whatever the records beside it have.
        digests = digests + (_digest_present(keys) - _NULL) * _KEY
    if any(headers):
        rows = [i for i, given in enumerate(headers) if given]
        digests[rows] += digest_all([_join_headers(headers[i]) for i in rows]) * _HEADERS
    return digests


def digest_places(partitions: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> Digests:
    """Return one digest a place."""
    pairs = np.stack([partitions, offsets], axis=1).astype(">i8").view("V16").reshape(-1).tolist()
    return digest_all(pairs)


def _digest_present(items: Sequence[bytes | None]) -> Digests:
    if None not in items:
        return digest_all(items)  # type: ignore[arg-type]  # none is None
    digests = np.full(len(items), _NULL)
    rows = [i for i, item in enumerate(items) if item is not None]
    digests[rows] = digest_all([items[i] for i in rows])  # type: ignore[misc]  # none is None
    return digests


def _join_headers(headers: Headers) -> bytes:
    parts = []
    for name, content in headers or ():
        parts += [_framed(name.encode()), _framed(content.encode() if isinstance(content, str) else content)]
    return b"".join(parts)


def _framed(item: bytes | None) -> bytes:
    return b"-" if item is None else b"%d:%b" % (len(item), item)
