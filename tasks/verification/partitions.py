"""Partitions by hash, by code of its own: murmur2 as Kafka's Java producer has it, keys of one length at a time."""

import struct
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

Partitions = npt.NDArray[np.int64]

_M = 0x5BD1E995
_SEED = 0x9747B28C
_WHOLE = 0xFFFFFFFF
_PLACES = np.array([1, 1 << 8, 1 << 16, 1 << 24])
# A table of longer keys has more columns than rows: these are hashed one by one.
_LONGEST = 512


def hash_partitions(keys: Sequence[bytes | None], count: int) -> Partitions:
    """Return the partition of each key among so many; -1 where a record has no key."""
    found = np.full(len(keys), -1)
    present = [i for i, key in enumerate(keys) if key is not None]
    present.sort(key=lambda i: len(keys[i] or b""))
    for length, group in groupby(present, key=lambda i: len(keys[i] or b"")):
        rows = list(group)
        texts = [keys[i] or b"" for i in rows]
        hashes = _hash_alike(texts, length) if length <= _LONGEST else np.array([_hash_one(text) for text in texts])
        found[rows] = (hashes & (_WHOLE >> 1)) % count
    return found


def _hash_alike(keys: Sequence[bytes], length: int) -> Partitions:
    """Hash keys of the same length, by a table with a row for each."""
    table = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), length).astype(np.int64)
    hashes = np.full(len(keys), _SEED ^ length)
    for at in range(0, length - 3, 4):
        hashes = _times(hashes) ^ _mix(table[:, at : at + 4] @ _PLACES)
    if rest := length % 4:
        hashes = _times(hashes ^ table[:, length - rest :] @ _PLACES[:rest])
    hashes = _times(hashes ^ (hashes >> 13))
    return hashes ^ (hashes >> 15)


def _mix(words: Partitions) -> Partitions:
    words = _times(words)
    return _times(words ^ (words >> 24))


def _times(numbers: Partitions) -> Partitions:
    """Multiply numbers of 32 bits modulo 2^32. A product has less than 64 bits."""
    return (numbers * _M) & _WHOLE


def _hash_one(key: bytes) -> int:
    h, end = _SEED ^ len(key), len(key) - len(key) % 4
    for word in struct.unpack(f"<{end // 4}I", key[:end]):
        mixed = word * _M & _WHOLE
        h = (h * _M & _WHOLE) ^ ((mixed ^ (mixed >> 24)) * _M & _WHOLE)
    if key[end:]:
        h = (h ^ int.from_bytes(key[end:], "little")) * _M & _WHOLE
    h = (h ^ (h >> 13)) * _M & _WHOLE
    return h ^ (h >> 15)
