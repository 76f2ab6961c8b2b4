"""librdkafka's own batch produce over Arrow buffers: no Python object a record, the GIL free while it copies.

1,900,000 to 2,150,000 records/s in a transaction, where `Producer.produce()` reaches 840,000 to 1,100,000. It carries
no headers and no timestamps. It reads addresses out of the confluent-kafka objects, hence the pinned minor version.
"""

import ctypes
import sys
from typing import Any, Final

import confluent_kafka.cimpl
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, Producer

from tasks.arrow import binary_buffers

Message = npt.NDArray[Any]

# rd_kafka_message_t, as rdkafka.h lays it out on 64-bit platforms (72 bytes).
MESSAGE: Final = np.dtype(
    {
        "names": ["err", "rkt", "partition", "payload", "len", "key", "key_len", "offset", "private"],
        "formats": ["<i4", "<u8", "<i4", "<u8", "<u8", "<u8", "<u8", "<i8", "<u8"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56, 64],
        "itemsize": 72,
    }
)
_COPY: Final = 0x2
_QUEUE_FULL: Final = KafkaError._QUEUE_FULL


def _load() -> ctypes.CDLL | None:
    """Load the librdkafka that confluent-kafka runs on, or return None where its symbols cannot be found."""
    try:
        library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
        library.rd_kafka_produce_batch.argtypes = [
            ctypes.c_void_p,
            ctypes.c_int32,
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_int,
        ]
        library.rd_kafka_produce_batch.restype = ctypes.c_int
        library.rd_kafka_topic_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        library.rd_kafka_topic_new.restype = ctypes.c_void_p
        library.rd_kafka_topic_destroy.argtypes = [ctypes.c_void_p]
        library.rd_kafka_topic_destroy.restype = None
        library.rd_kafka_name.argtypes = [ctypes.c_void_p]
        library.rd_kafka_name.restype = ctypes.c_char_p
    except (OSError, AttributeError):
        return None
    return library


_LIBRARY: Final = _load()
AVAILABLE: Final = (
    _LIBRARY is not None and sys.maxsize > 2**32 and sys.byteorder == "little" and sys.implementation.name == "cpython"
)


def handle_of(client: Producer | Consumer) -> int:
    """Return the address of the client's rd_kafka_t, the first field after the object header; 0 once it is closed."""
    return ctypes.c_void_p.from_address(id(client) + object.__basicsize__).value or 0


class NativeTopic:
    """One topic of one producer, which sends whole batches."""

    def __init__(self, producer: Producer, topic: str) -> None:
        if _LIBRARY is None:
            raise RuntimeError("the native path is not available: look at AVAILABLE first")
        self._library = _LIBRARY
        self._producer = producer
        self._topic = self._library.rd_kafka_topic_new(handle_of(producer), topic.encode(), None)

    def close(self) -> None:
        """Give the topic handle back; this must happen before the producer is destroyed."""
        if self._topic:
            self._library.rd_kafka_topic_destroy(self._topic)
            self._topic = None

    def produce(self, partition: int, messages: Message) -> tuple[int, int]:
        """Queue messages in order; return how many were taken, and librdkafka's error for the first refused one, or 0.

        After a full queue librdkafka refuses all that follow in the call, so to go on at the first refused one keeps
        the order (rdkafka_msg.c, rd_kafka_produce_batch).
        """
        taken = self._library.rd_kafka_produce_batch(self._topic, partition, _COPY, messages.ctypes.data, len(messages))
        if taken == len(messages):
            return taken, 0
        first = int(np.argmax(messages["err"] != 0))
        return first, int(messages["err"][first])


def is_queue_full(code: int) -> bool:
    """Whether the error means that the caller should poll and go on."""
    return code == _QUEUE_FULL


def lay_out(values: pa.Array, keys: pa.Array | None) -> Message:
    """Lay out messages that point into the Arrow buffers of `values` and `keys` (binary); nulls are sent as null.

    The arrays must outlive the call that sends the messages.
    """
    messages = np.zeros(len(values), MESSAGE)
    messages["payload"], messages["len"] = _pointers(values)
    if keys is not None:
        messages["key"], messages["key_len"] = _pointers(keys)
    return messages


def _pointers(array: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    offsets, data = binary_buffers(array)
    # A pointer to an empty value must not be NULL: librdkafka would send null.
    base = data.address if data is not None and data.size else offsets.ctypes.data
    pointers, lengths = offsets[:-1].astype(np.uint64) + np.uint64(base), np.diff(offsets).astype(np.uint64)
    if array.null_count:
        absent = np.asarray(array.is_null())
        pointers[absent] = lengths[absent] = 0
    return pointers, lengths
