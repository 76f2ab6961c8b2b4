"""Varints, as Avro and Protobuf write integers, at many places of a text at once."""

import numpy as np
import numpy.typing as npt

# The high bit of each byte of a word: another byte of the varint follows.
MARKS = np.uint64(0x8080808080808080)
MOST_BYTES = 10
_ONE = np.uint64(1)


def make_words(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return all eight bytes from each byte on as one number, without a copy."""
    return np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))


def measure_varints(
    text: npt.NDArray[np.uint8], words: npt.NDArray[np.uint64], pos: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the sizes of varints; a size above MOST_BYTES is that of none."""
    stop = ~words[pos] & MARKS
    sizes = np.bitwise_count(stop ^ (stop - _ONE)).astype(np.int64) >> 3
    long = np.flatnonzero(stop == 0)
    if len(long):
        sizes[long] = _measure_long(text, pos[long])[1]
    return sizes


def unpack_varints(
    text: npt.NDArray[np.uint8], words: npt.NDArray[np.uint64], pos: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the numbers that varints are, and their sizes; a size above MOST_BYTES is that of none."""
    word = words[pos]
    # The first byte without the high bit ends a number.
    stop = ~word & MARKS
    below = stop ^ (stop - _ONE)
    # Seven bits of each byte move together: in pairs of bytes, then of pairs.
    word &= below & ~MARKS
    word = (word & np.uint64(0x007F007F007F007F)) | ((word & np.uint64(0x7F007F007F007F00)) >> np.uint64(1))
    word = (word & np.uint64(0x00003FFF00003FFF)) | ((word & np.uint64(0x3FFF00003FFF0000)) >> np.uint64(2))
    word = (word & np.uint64(0x0FFFFFFF)) | ((word & np.uint64(0x0FFFFFFF00000000)) >> np.uint64(4))
    sizes = np.bitwise_count(below).astype(np.int64) >> 3
    long = np.flatnonzero(stop == 0)
    if len(long):
        top, sizes[long] = _measure_long(text, pos[long])
        word[long] |= top
    return word, sizes


def _measure_long(
    text: npt.NDArray[np.uint8], pos: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the bits from the ninth byte on, and the sizes, of varints of more than eight bytes."""
    ninth, tenth = (text[pos + i].astype(np.uint64) for i in (8, 9))
    ends = ninth <= 0x7F
    top = ((ninth & np.uint64(0x7F)) << np.uint64(56)) | np.where(ends, np.uint64(0), tenth << np.uint64(63))
    return top, np.where(ends, 9, np.where(tenth <= 0x7F, MOST_BYTES, MOST_BYTES + 1))
