"""Kafka clients with the settings the guarantees rest on, and the translation of their errors into the project's.

Every client is made here, so that no property that matters is set in two places.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from tasks.errors import BrokerUnavailableError, SettingsError, TerminalError, TransientError
from tasks.settings.connection import Connection

# As large as the broker's default limit for a batch allows: fewer requests, better compression.
BATCH_BYTES = 1_000_000

Headers = Sequence[tuple[str, bytes | None]]
Property = str | int | float | bool | Callable[..., Any]

# Trying again cannot help: somebody has to change a topic, an ACL or a setting.
_TERMINAL = frozenset(
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
_ACL_HINTS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant the topic's operations that the README lists",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant Read and Describe on the job's two groups",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "grant Write and Describe on the transactional id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant the operation on the cluster, or make the topics beforehand",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "lower --transaction-timeout to the broker's transaction.max.timeout.ms",
    KafkaError.INVALID_SESSION_TIMEOUT: (
        "set --session-timeout within the broker's group.min.session.timeout.ms and group.max.session.timeout.ms"
    ),
    KafkaError.MSG_SIZE_TOO_LARGE: "raise the output topic's max.message.bytes",
}


class KafkaTransientError(TransientError):
    """Kafka refused or did not answer, and may do so later. `code` is librdkafka's error code."""

    def __init__(self, what: str, error: KafkaError) -> None:
        super().__init__(f"{what}: {error.name()}: {error.str()}")
        self.code = error.code()


class KafkaTerminalError(TerminalError):
    """Kafka refused, and will until something is changed. `code` is librdkafka's error code."""

    def __init__(self, what: str, error: KafkaError) -> None:
        hint = _ACL_HINTS.get(error.code())
        super().__init__(f"{what}: {error.name()}: {error.str()}" + (f"; {hint}" if hint else ""))
        self.code = error.code()


def translate(what: str, error: KafkaError) -> KafkaTransientError | KafkaTerminalError:
    """The project's error for librdkafka's; `what` says what was being done, and where."""
    kind = KafkaTerminalError if error.code() in _TERMINAL else KafkaTransientError
    return kind(what, error)


@contextmanager
def kafka_errors(what: str) -> Iterator[None]:
    """Raise the project's errors in place of KafkaException."""
    try:
        yield
    except KafkaException as error:
        raise translate(what, error.args[0]) from error


@contextmanager
def _settings_errors(connection: Connection) -> Iterator[None]:
    """Clients connect later: what fails when one is made is a property.

    librdkafka may name it by another name than the one set (`linger.ms` is its `queue.buffering.max.ms`).
    """
    try:
        yield
    except KafkaException as error:
        names = ", ".join(connection.properties) or "none"
        raise SettingsError(f"Kafka property: {error.args[0].str()} (properties set: {names})") from error


def _ignore(_: KafkaError) -> None:
    """Calls report their own errors; without a callback librdkafka prints to standard error."""


def make_admin(connection: Connection) -> AdminClient:
    """An admin client."""
    config: dict[str, Any] = {"log_level": 0, **connection.client_config(), "error_cb": _ignore}
    with _settings_errors(connection):
        return AdminClient(config)


def make_reader(connection: Connection, group: str, **over: Property) -> Consumer:
    """A consumer for `assign()`: committed records only, corrupt batches refused, no offset of its own making.

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
    """A producer with acks=all and idempotence."""
    base: dict[str, Property] = {
        "log_level": 0,
        "compression.type": "lz4",
        "linger.ms": 20,
        "batch.size": BATCH_BYTES,
        "batch.num.messages": 100_000,
        # The topics' own limits are what counts; 1 MB by default, less than Kafka's.
        "message.max.bytes": 1_000_000_000,
        **connection.client_config(),
        "acks": "all",
        "enable.idempotence": True,
        "error_cb": _ignore,
    }
    with _settings_errors(connection):
        return Producer({**base, **over})


def record_bytes(message: Message) -> int:
    """Bytes of value, key and headers; `len(message)` is the value's alone."""
    return len(message) + len(message.key() or b"") + header_bytes(message.headers())


def header_bytes(headers: Any) -> int:
    """Bytes of what `Message.headers` gives, names and values."""
    return sum(len(name) + len(value or b"") for name, value in headers or ())


def require_broker(admin: AdminClient, connection: Connection, timeout: float) -> None:
    """BrokerUnavailableError unless a broker answers within `timeout` seconds."""
    try:
        admin.list_topics(timeout=timeout)
    except KafkaException as error:
        cause: KafkaError = error.args[0]
        if cause.code() in _TERMINAL:
            raise translate(f"broker {connection.bootstrap_servers}", cause) from error
        raise BrokerUnavailableError(
            f"no broker answered at {connection.bootstrap_servers} within {timeout:g} s ({cause.name()}): "
            "start one (kafka-sort broker) or give the address (--bootstrap-servers)"
        ) from error
