"""Kafka clients with the settings the guarantees rest on, and the translation of their errors into the project's.

Every client is created here, so that no property that matters is set in two places.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError, TerminalError, TransientError
from tasks.settings.connection import Connection

# The largest batch within the broker's default limit: fewer requests, better compression.
BATCH_BYTES = 1_000_000

Headers = Sequence[tuple[str, bytes | None]]
Property = str | int | float | bool | Callable[..., Any]

# A retry cannot help: somebody has to change a topic, an ACL or a setting.
TERMINAL = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError._INVALID_ARG,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.SECURITY_DISABLED,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
    }
)
# The permissions that were missing, in the words of `kafka-acls`. Read and Write include Describe.
REFUSALS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        "grant what it takes on the topic: Read to read it, Write to write to it, DescribeConfigs to see its settings"
    ),
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant Read on the job's groups, or Describe for commands that only look",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "grant Write on the transactional id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant the operation on the cluster",
}
# librdkafka 2.16 aborts the process if a request to a group's coordinator has timed out and the coordinator comes up
# later. So the request gets the longest timeout there is, and the caller stops waiting by itself.
# https://github.com/confluentinc/librdkafka/issues/4605
GROUP_REQUEST_TIMEOUT = 3600.0
_KEPT_ERRORS = 16
_SILENT = logging.getLogger("librdkafka")
_SILENT.setLevel(logging.CRITICAL + 1)
_HINTS = REFUSALS | {
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "lower --transaction-timeout to the broker's transaction.max.timeout.ms",
    KafkaError.INVALID_SESSION_TIMEOUT: (
        "set --session-timeout within the broker's group.min.session.timeout.ms and group.max.session.timeout.ms"
    ),
    KafkaError.INVALID_TIMESTAMP: (
        "set this machine's clock; with timestamps=keep, the output topic's message.timestamp.after.max.ms"
    ),
    KafkaError.MSG_SIZE_TOO_LARGE: "raise the output topic's max.message.bytes",
}


class KafkaTransientError(TransientError):
    """Kafka refused or did not answer, and may do better later. `code` is librdkafka's error code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class CommitUnknownError(KafkaTransientError):
    """A commit was refused or got no answer: the ledger has whether the run is visible."""

    action = "Nothing: the next attempt, or the next start, reads in the ledger whether to go on or to publish again."
    settled = False


class KafkaTerminalError(TerminalError):
    """Kafka refused, and will refuse until something is changed. `code` is librdkafka's error code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class NotPermittedError(KafkaTerminalError):
    """Kafka's ACLs do not give the principal the operations that the job needs. The message names the resource."""

    exit_code = 2
    action = "Have the operations granted that the line names; docs/security.md lists all that a job needs."


def translate(what: str, error: KafkaError) -> KafkaTransientError | KafkaTerminalError:
    """Translate librdkafka's error into the project's; `what` says what was being done, and where."""
    code, hint = error.code(), _HINTS.get(error.code())
    message = f"{what}: {error.name()}: {error.str()}" + (f"; {hint}" if hint else "")
    if code in REFUSALS:
        return NotPermittedError(message, code)
    return KafkaTerminalError(message, code) if code in TERMINAL else KafkaTransientError(message, code)


def is_of_group(error: KafkaError) -> bool:
    """Whether a consumer's error is about its group, which one that uses `assign()` and commits nothing does not need.

    librdkafka asks for the group's coordinator all the same, and reports a refusal among the records.
    """
    return error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


@contextmanager
def kafka_errors(what: str) -> Iterator[None]:
    """Raise the project's errors in place of KafkaException."""
    try:
        yield
    except KafkaException as error:
        raise translate(what, error.args[0]) from error


@contextmanager
def _settings_errors(connection: Connection) -> Iterator[None]:
    """Raise SettingsError: clients connect later, so an error at their creation is about a property.

    librdkafka may name it by another name than the one set (`linger.ms` is its `queue.buffering.max.ms`).
    """
    try:
        yield
    except KafkaException as error:
        names = ", ".join(connection.properties) or "none"
        raise SettingsError(f"Kafka property: {error.args[0].str()} (properties set: {names})") from error


def _ignore(_: KafkaError) -> None:
    """Drop the error: calls report their own errors, and without a callback librdkafka prints to standard error."""


class Admin(AdminClient):
    """An admin client that keeps the errors of its connections, which no call reports."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.met: deque[KafkaError] = deque(maxlen=_KEPT_ERRORS)
        own: dict[str, Any] = {**config, "error_cb": self.met.append}
        super().__init__(own)


def make_admin(connection: Connection, **over: Property) -> Admin:
    """Create an admin client.

    `metadata.max.age.ms`: by default it asks the leaders it knows for a quarter of an hour, even dead or deposed ones.
    """
    with _settings_errors(connection):
        return Admin({"log_level": 0, "metadata.max.age.ms": 5000, **connection.client_config(), **over})


def make_consumer(connection: Connection, group: str, **over: Property) -> Consumer:
    """Create a consumer for `assign()`: committed records only, corrupt batches refused, no offset of its own choice.

    `fetch.queue.backoff.ms`: the default of 1000 stalls a reader whose queue is full (240,000 → 420,000 records/s).
    """
    base: dict[str, Property] = {
        "log_level": 0,
        "fetch.queue.backoff.ms": 10,
        "queued.max.messages.kbytes": 32_768,
        **connection.client_config(),
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
        "error_cb": _ignore,
    }
    with _settings_errors(connection):
        return Consumer({**base, **over})


def make_producer(connection: Connection, **over: Property) -> Producer:
    """Create a producer with acks=all and idempotence."""
    base: dict[str, Any] = {
        "log_level": 0,
        "compression.type": "lz4",
        "linger.ms": 20,
        "batch.size": BATCH_BYTES,
        "batch.num.messages": 100_000,
        # The topics' own limits count; the default of 1 MB is less than Kafka's.
        "message.max.bytes": 1_000_000_000,
        **connection.client_config(),
        "acks": "all",
        "enable.idempotence": True,
        "error_cb": _ignore,
        # librdkafka prints a fatal error at any log level; the call that meets it raises it.
        "logger": _SILENT,
    }
    with _settings_errors(connection):
        return Producer({**base, **over})


Answer = TypeVar("Answer")


def await_answer(answer: Future[Answer], seconds: float) -> Answer:
    """Return the answer to an admin client's request; KafkaException if none comes within so many seconds."""
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None


def record_bytes(message: Message) -> int:
    """Count the bytes of value, key and headers; `len(message)` counts the value alone."""
    return len(message) + len(message.key() or b"") + header_bytes(message.headers())


def header_bytes(headers: Any) -> int:
    """Count the bytes of names and values in the result of `Message.headers`."""
    return sum(len(name) + len(value or b"") for name, value in headers or ())
