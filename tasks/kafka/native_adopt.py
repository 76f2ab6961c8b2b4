"""Lets a producer send under another's producer id and epoch, so that several producers write into one transaction.

librdkafka has no call for it (KIP-939 will not give one either). What a producer sends under is ten bytes of its
rd_kafka_t, `rk_eos.pid`: they are found by what they and their neighbours hold, in exactly one place, and overwritten.
A producer that adopted nothing is older than the transaction, and the broker refuses its first request: a mistake here
costs an attempt, and writes nothing.
"""

import ctypes
import re
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import confluent_kafka.cimpl
from confluent_kafka import KafkaException, Producer

from tasks.errors import TerminalError
from tasks.kafka import native_produce
from tasks.kafka.native_produce import handle_of

# librdkafka reads this clock in microseconds, and has no monotonic one on macOS (rdtime.h, rd_clock).
_clock: Final = time.time if sys.platform == "darwin" else time.monotonic
# Imported before any producer is made whose identity can be learnt, so that each identity is younger.
_LOADED: Final = _clock()
# `rk_eos` of rd_kafka_t (rdkafka_int.h): state, the time of its change in µs, id and epoch, padding, count of epochs.
_LAYOUT: Final = struct.Struct("<iiqqhhii")
_BEFORE: Final = 16  # bytes of it before the id
_IDENTITY: Final = struct.Struct("<qh")
_ALIGNMENT: Final = 8
_ASSIGNED: Final = 6  # RD_KAFKA_IDEMP_STATE_ASSIGNED
# An instance has its first epoch: none of ours inits or aborts, and then goes on.
_FIRST_EPOCH: Final = 1
# An rd_kafka_t has 7256 bytes in librdkafka 2.16. More than this is no size of one.
_MOST_BYTES: Final = 16_384
_ACQUIRED: Final = re.compile(r"Acquired PID\{Id:(\d+),Epoch:(\d+)\}")
_LOOK_SECONDS: Final = 0.01
_TEST_SECONDS: Final = 5.0


@dataclass(frozen=True)
class _Calls:
    """The calls beside those of confluent-kafka: the C library's size of an allocation, and librdkafka's log level."""

    size_of: Callable[[int], int]
    set_log_level: Callable[[int, int], None]


def _load() -> _Calls | None:
    """Load the calls, or return None on a platform that lacks one: a search must never leave the rd_kafka_t."""
    if not native_produce.AVAILABLE:
        return None
    system, librdkafka = ctypes.CDLL(None), ctypes.CDLL(confluent_kafka.cimpl.__file__)
    size_of = getattr(system, "malloc_size" if sys.platform == "darwin" else "malloc_usable_size", None)
    set_log_level = getattr(librdkafka, "rd_kafka_set_log_level", None)
    if size_of is None or set_log_level is None:
        return None
    size_of.argtypes, size_of.restype = [ctypes.c_void_p], ctypes.c_size_t
    set_log_level.argtypes, set_log_level.restype = [ctypes.c_void_p, ctypes.c_int], None
    return _Calls(size_of, set_log_level)


_CALLS: Final = _load()


def _require_calls() -> _Calls:
    if _CALLS is None:
        raise PlaceNotFoundError("this platform lacks a call of librdkafka, or the C library's size of an allocation")
    return _CALLS


class PlaceNotFoundError(TerminalError):
    """A producer's id and epoch were not found in librdkafka's memory, so it cannot take part in a transaction."""

    action = (
        "Publish with one publisher. To have more, install the version of confluent-kafka that the project pins, on "
        "Linux or macOS."
    )
    at_risk = "No: nothing was sent."


@dataclass(frozen=True)
class ProducerIdentity:
    """The producer id that a transactional producer sends under, and the epoch, which fences older ones (KIP-98)."""

    id: int
    epoch: int


class IdentityLog:
    """The logger of one producer, which keeps the identity that the producer acquired last, and nothing else.

    librdkafka tells its identity only in a debug line. Give `properties` to the producer when it is made. No line goes
    any further, and none is made once `learn` has returned. confluent-kafka calls only a logger's `log`.
    """

    def __init__(self) -> None:
        self._newest: ProducerIdentity | None = None

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that make a producer log to this."""
        return {"debug": "eos", "logger": self}

    def log(self, *line: object) -> None:
        """Take a line from confluent-kafka: level, format, facility, name, and librdkafka's text."""
        if found := _ACQUIRED.search(str(line[-1])):
            self._newest = ProducerIdentity(int(found[1]), int(found[2]))

    def learn(self, producer: Producer, seconds: float = 2.0) -> ProducerIdentity:
        """Return the producer's own identity, after `init_transactions`; PlaceNotFoundError if it does not come.

        The line waits in the producer's queue, so this serves the queue.
        """
        deadline = time.monotonic() + seconds
        while self._newest is None:
            if time.monotonic() > deadline:
                raise PlaceNotFoundError(f"librdkafka told no producer id within {seconds:g} s: was the producer init?")
            producer.poll(_LOOK_SECONDS)
        # Lines of the transaction would wait in the queue that records are polled by.
        _require_calls().set_log_level(handle_of(producer), 0)
        return self._newest


def find_place(producer: Producer, own: ProducerIdentity) -> int:
    """Return the address of `rk_eos.pid` in the producer's rd_kafka_t; PlaceNotFoundError unless there is exactly one.

    `own` is the identity that the producer has now.
    """
    base = handle_of(producer)
    if not base:
        raise PlaceNotFoundError("the producer is closed, so it has no identity to find")
    size = min(_require_calls().size_of(base), _MOST_BYTES)
    places, alike = search(ctypes.string_at(base, size), own)
    if len(places) != 1:
        raise PlaceNotFoundError(
            f"producer id {own.id}, epoch {own.epoch}: {len(places)} places in {size} bytes of librdkafka's memory, "
            f"where one must be (at {places}; without what must stand around it at {alike})"
        )
    return base + places[0]


def search(memory: bytes, own: ProducerIdentity) -> tuple[list[int], list[int]]:
    """Return the offsets of `own` in an rd_kafka_t's bytes: those where its neighbours fit, and all."""
    pair, last = _IDENTITY.pack(own.id, own.epoch), len(memory) - _LAYOUT.size + _BEFORE
    steps = range(_BEFORE, last + 1, _ALIGNMENT)
    alike = [at for at in steps if memory.startswith(pair, at)]
    return [at for at in alike if _fits(memory, at)], alike


def _fits(memory: bytes, at: int) -> bool:
    state, _, changed, _, _, _, _, count = _LAYOUT.unpack_from(memory, at - _BEFORE)
    plausible = _LOADED <= changed / 1e6 <= _clock()
    return state == _ASSIGNED and plausible and bool(count == _FIRST_EPOCH)


def adopt(producer: Producer, own: ProducerIdentity, shared: ProducerIdentity) -> None:
    """Let the producer send under `shared` from now on; `own` is what it has. PlaceNotFoundError if that is not safe.

    To be called between `init_transactions` and `begin_transaction`, and only for an identity of the same transactional
    id: the broker refuses another's (INVALID_PRODUCER_ID_MAPPING). The producer id may be another one; Kafka gives a
    new one after 32,767 epochs. After an error the producer must be thrown away.
    """
    place = find_place(producer, own)
    ctypes.memmove(place, _IDENTITY.pack(shared.id, shared.epoch), _IDENTITY.size)
    if (found := find_place(producer, shared)) != place:
        raise PlaceNotFoundError(f"producer id {shared.id}, written at {place:#x}, was found at {found:#x}")


@cache
def self_test() -> None:
    """Try it on a producer of librdkafka's own mock cluster, in 0.1 s; PlaceNotFoundError if it does not work here.

    The mock cluster is a thread of this process; no broker is asked. A success holds for the process.
    """
    log = IdentityLog()
    try:
        producer = Producer(
            {"test.mock.num.brokers": 1, "transactional.id": "self-test", "error_cb": _ignore, **log.properties}
        )
        producer.list_topics(timeout=_TEST_SECONDS)  # with a connection, librdkafka finds the coordinator at once
        producer.init_transactions(_TEST_SECONDS)
    except KafkaException as error:
        raise PlaceNotFoundError(f"the self-test's producer could not begin: {error.args[0].str()}") from error
    own = log.learn(producer)
    other = ProducerIdentity(own.id + 1, own.epoch + 1)
    adopt(producer, own, own)
    adopt(producer, own, other)
    adopt(producer, other, own)


def _ignore(_: object) -> None:
    """Drop an error of the self-test's connections, which librdkafka would print."""
