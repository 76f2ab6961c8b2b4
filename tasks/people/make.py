"""The sample data: people with an id, a name, an address and a continent, as columns and in each format.

Guarantee: person i is a function of the seed and of i alone, the same in each format.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bytes = npt.NDArray[np.uint8]
# `id` as int64, the other fields as binary.
People = Mapping[str, pa.Array]

_CONTINENTS: Final = (b"North America", b"Asia", b"South America", b"Europe", b"Africa", b"Australia")
_TEXTS: Final = ("name", "address", "continent")
_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NAME_LENGTHS: Final = (10, 15)
_ADDRESS_LENGTHS: Final = (15, 20)

# The random bytes of one record, and their uses. Two steps of Philox's counter give 64 bytes.
_STEPS: Final = 2
_ID: Final = slice(0, 4)
_NAME_LENGTH: Final = 4
_ADDRESS_LENGTH: Final = 5
_CONTINENT: Final = 6
_NAME: Final = slice(8, 8 + _NAME_LENGTHS[1])
_ADDRESS: Final = slice(24, 24 + _ADDRESS_LENGTHS[1])


def make_people(seed: int, first: int, count: int) -> People:
    """Make the people `first` to `first + count` of a seed.

    Philox can begin anywhere in its stream, and its raw output is the same in every NumPy.
    """
    raw = np.random.Philox(key=seed, counter=first * _STEPS).random_raw(count * _STEPS * 4)
    bits = raw.astype("<u8", copy=False).view(np.uint8).reshape(count, -1)
    return {
        # Numbers from 0 to 2**31 - 1.
        "id": pa.array((np.ascontiguousarray(bits[:, _ID]).view("<u4")[:, 0] >> 1).astype(np.int64)),
        "name": _make_texts(bits[:, _NAME], bits[:, _NAME_LENGTH], _NAME_LENGTHS, _NAME_TABLE),
        "address": _make_texts(bits[:, _ADDRESS], bits[:, _ADDRESS_LENGTH], _ADDRESS_LENGTHS, _ADDRESS_TABLE),
        "continent": pa.array(_CONTINENTS, pa.binary()).take(pa.array(bits[:, _CONTINENT] % len(_CONTINENTS))),
    }


def _make_texts(random: Bytes, random_lengths: Bytes, bounds: tuple[int, int], table: Bytes) -> pa.Array:
    """Make texts of bounds[0] to bounds[1] characters: the first ones of each row, by `table`."""
    shortest, longest = bounds
    lengths = shortest + random_lengths % (longest - shortest + 1)
    # Row k keeps the first k characters. "clip" saves the check of each index; a byte is always within its table.
    kept = np.take(np.tri(longest + 1, longest, -1, bool), lengths, axis=0, mode="clip")
    characters = np.take(table, random, mode="clip")[kept]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(characters)])


def _make_table(alphabet: bytes) -> Bytes:
    """Make the table random byte → character of the alphabet."""
    return np.frombuffer(alphabet, np.uint8)[np.arange(256) % len(alphabet)]


_NAME_TABLE: Final = _make_table(_LETTERS)
_ADDRESS_TABLE: Final = _make_table(_LETTERS + b"0123456789 ")


def write_csv(people: People) -> pa.Array:
    """Write `id,name,address,continent`."""
    return _join(_digits(people["id"]), b",", people["name"], b",", people["address"], b",", people["continent"])


def write_json(people: People) -> pa.Array:
    """Write objects. No letter of the sample data needs an escape."""
    texts = [part for name in _TEXTS for part in (f',"{name}":"'.encode(), people[name], b'"')]
    return _join(b'{"id":', _digits(people["id"]), *texts, b"}")


def write_avro(people: People) -> pa.Array:
    """Write records of the schema in people.avsc, without framing."""
    texts = [part for name in _TEXTS for part in (_varints(_lengths(people[name]) << 1), people[name])]
    return _join(_varints(people["id"].to_numpy() << 1), *texts)


def write_protobuf(people: People) -> pa.Array:
    """Write messages `Person` of people.proto, without framing; an id of 0 is the default, and left out."""
    ids = _join(b"\x08", _varints(people["id"].to_numpy()))
    ids = pc.if_else(pc.equal(people["id"], 0), pa.scalar(b""), ids)
    texts = [
        part
        for number, name in enumerate(_TEXTS, 2)
        for part in (bytes([number << 3 | 2]), _varints(_lengths(people[name])), people[name])
    ]
    return _join(ids, *texts)


# Format → the records of people, as an Arrow binary array.
WRITERS: Final[Mapping[str, Callable[[People], pa.Array]]] = {
    "csv": write_csv,
    "json": write_json,
    "avro": write_avro,
    "protobuf": write_protobuf,
}
# Format → the file that describes its records, for `--avro-schema` and `--protobuf-descriptor`.
SCHEMAS: Final = {
    name: Path(__file__).parent / file for name, file in {"avro": "people.avsc", "protobuf": "people.desc"}.items()
}


def _join(*parts: pa.Array | bytes) -> pa.Array:
    return pc.binary_join_element_wise(
        *(pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part for part in parts),
        pa.scalar(b"", pa.binary()),
    )


def _digits(numbers: pa.Array) -> pa.Array:
    return numbers.cast(pa.string()).cast(pa.binary())


def _lengths(texts: pa.Array) -> npt.NDArray[np.int64]:
    return np.asarray(pc.binary_length(texts)).astype(np.int64)


def _varints(numbers: npt.NDArray[np.int64]) -> pa.Array:
    """Encode numbers below 2**35, 7 bits a byte, the lowest first; all bytes but the last have the top bit."""
    shifted = numbers[:, None] >> np.arange(0, 35, 7)
    more = shifted[:, 1:] > 0
    lengths = 1 + more.sum(axis=1)
    coded = (shifted & 0x7F).astype(np.uint8)
    coded[:, :-1] |= more.astype(np.uint8) << 7
    kept = coded[np.arange(5) < lengths[:, None]]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(kept)])
