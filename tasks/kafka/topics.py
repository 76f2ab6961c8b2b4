"""Topics as the admin client sees them: identity, partitions, settings, offsets, creation."""

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType
from tenacity import RetryCallState, retry, retry_if_exception, stop_after_delay, wait_exponential_jitter

from tasks.errors import SettingsError, TransientError
from tasks.kafka.clients import (
    REFUSALS,
    KafkaTerminalError,
    KafkaTransientError,
    NotPermittedError,
    kafka_errors,
    make_consumer,
    translate,
)
from tasks.settings.connection import Connection
from tasks.settings.sorts import describe_collision, find_collision

# A thousand partitions at once stay far below a broker's request limits. The broker that librdkafka asks may be dead:
# the next attempt asks another, so it must not come too late.
REQUEST_TIMEOUT = 10.0
_VISIBLE_TIMEOUT = 30.0
_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 1.0


def _may_pass_soon(error: BaseException) -> bool:
    """Whether it may pass soon: some brokers do not know a new topic for a moment."""
    unknown = isinstance(error, KafkaTerminalError) and error.code == KafkaError.UNKNOWN_TOPIC_OR_PART
    return unknown or isinstance(error, KafkaTransientError)


def _look_again(state: RetryCallState) -> None:
    """Refresh the metadata: until then an admin client asks the controller it knows, even an unreachable one."""
    with suppress(KafkaException):
        state.args[0].list_topics(timeout=_LOOK_SECONDS)


# A broker that restarts, a leader that moves, a new topic: the same question is answered soon.
_patiently = retry(
    retry=retry_if_exception(_may_pass_soon),
    wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1),
    stop=stop_after_delay(_PATIENCE_SECONDS),
    before_sleep=_look_again,
    reraise=True,
)

EARLIEST = OffsetSpec.earliest()
LATEST = OffsetSpec.latest()


@dataclass(frozen=True)
class Topic:
    """A topic by its id: one that was deleted and recreated has another."""

    name: str
    id: str
    partitions: tuple[int, ...]
    leaderless: tuple[int, ...] = ()
    # The number of replicas of the partition that has the fewest.
    replicas: int = 1

    @property
    def led(self) -> tuple[int, ...]:
        """Partitions that have a leader."""
        return tuple(p for p in self.partitions if p not in self.leaderless)


def cluster_id(admin: AdminClient) -> str:
    """Return the id of the cluster."""
    with kafka_errors("cluster"):
        return str(admin.list_topics(timeout=REQUEST_TIMEOUT).cluster_id)


def describe_topic(admin: AdminClient, name: str) -> Topic | None:
    """Describe the topic; None if it does not exist."""
    return describe_topics(admin, [name]).get(name)


@_patiently
def describe_topics(admin: AdminClient, names: Collection[str]) -> dict[str, Topic]:
    """Describe those of the topics that exist, by name, in one request."""
    found: dict[str, Topic] = {}
    if not names:
        return found
    with kafka_errors(f"topic {', '.join(names)}"):
        futures = admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_TIMEOUT)
        for name, future in futures.items():
            try:
                found[name] = _topic(name, future.result())
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
    return found


def _topic(name: str, found: Any) -> Topic:  # the client's types deny that a leader may be None
    leaderless = tuple(p.id for p in found.partitions if p.leader is None or p.leader.id < 0)
    replicas = min((len(p.replicas) for p in found.partitions), default=1)
    return Topic(name, str(found.topic_id), tuple(sorted(p.id for p in found.partitions)), leaderless, replicas)


def topic_settings(admin: AdminClient, name: str) -> dict[str, str]:
    """Return the topic's effective configuration."""
    return _settings(admin, ResourceType.TOPIC, name)


def broker_settings(admin: AdminClient) -> dict[str, str]:
    """Return the configuration of one broker; empty where the principal may not see it."""
    with kafka_errors("cluster"):
        node = next(iter(admin.list_topics(timeout=REQUEST_TIMEOUT).brokers))
    try:
        return _settings(admin, ResourceType.BROKER, str(node))
    except NotPermittedError:
        return {}


def all_broker_settings(admin: AdminClient) -> dict[int, dict[str, str]]:
    """Return the configuration of every broker that is up, by its id; empty where the principal may not see it."""
    with kafka_errors("cluster"):
        nodes = admin.list_topics(timeout=REQUEST_TIMEOUT).brokers
    try:
        return {node: _settings(admin, ResourceType.BROKER, str(node)) for node in nodes}
    except NotPermittedError:
        return {}


@_patiently
def _settings(admin: AdminClient, kind: ResourceType, name: str) -> dict[str, str]:
    resource = ConfigResource(kind, name)
    with kafka_errors(f"settings of {kind.name.lower()} {name}"):
        entries = admin.describe_configs([resource], request_timeout=REQUEST_TIMEOUT)[resource].result()
    return {key: entry.value for key, entry in entries.items() if entry.value is not None}


def create_topic(
    admin: AdminClient,
    name: str,
    partitions: int,
    replication_factor: int | None = None,
    config: Mapping[str, str] | None = None,
) -> Topic:
    """Create the topic unless it exists, and wait until it is visible: Kafka answers before a creation propagates."""
    _ask_for(admin, _new_topic(name, partitions, replication_factor, config))
    return _await_partitions(admin, name, 1, "was created")


def _await_partitions(admin: AdminClient, name: str, count: int, what: str) -> Topic:
    """Return the topic once so many partitions can be used; TransientError if that takes too long."""
    deadline = time.monotonic() + _VISIBLE_TIMEOUT
    while time.monotonic() < deadline:
        topic = describe_topic(admin, name)
        if topic and len(topic.partitions) >= count and not topic.leaderless:
            # The leaders know it a moment later than the controller does.
            list_offsets(admin, name, topic.partitions, EARLIEST)
            return topic
        time.sleep(0.05)
    raise TransientError(f"topic {name} {what}, but did not become visible within {_VISIBLE_TIMEOUT:g} s")


def add_partitions(admin: AdminClient, name: str, count: int, *, only_check: bool = False) -> None:
    """Add partitions to the topic until it has so many, and wait until they are visible.

    `only_check`: Kafka is asked whether it would do so, and nothing is changed.
    """
    new = [NewPartitions(name, count)]
    try:
        admin.create_partitions(new, operation_timeout=REQUEST_TIMEOUT, validate_only=only_check)[name].result()
    except KafkaException as error:
        cause = error.args[0]
        # Somebody else may have added them.
        if cause.code() != KafkaError.INVALID_PARTITIONS:
            refused = " (that needs Alter on it)" * (cause.code() in REFUSALS)
            raise translate(f"partitions could not be added to topic {name}{refused}", cause) from error
    if not only_check:
        _await_partitions(admin, name, count, "got partitions")


def check_creation(
    admin: AdminClient, name: str, partitions: int, replication_factor: int | None, config: Mapping[str, str]
) -> None:
    """Raise the error of `create_topic`, if Kafka would refuse the topic; it is not created."""
    _ask_for(admin, _new_topic(name, partitions, replication_factor, config), validate_only=True)


def _new_topic(
    name: str, partitions: int, replication_factor: int | None, config: Mapping[str, str] | None
) -> NewTopic:
    replicas = replication_factor or -1
    return NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=dict(config or {}))


def _ask_for(admin: AdminClient, new: NewTopic, *, validate_only: bool = False) -> None:
    asked = admin.create_topics([new], operation_timeout=REQUEST_TIMEOUT, validate_only=validate_only)
    try:
        asked[new.topic].result()
    except KafkaException as error:
        _raise_unless_made(new.topic, error)


# What is wrong with a topic that Kafka does not create, and what to do.
_WAYS = {
    KafkaError.INVALID_REPLICATION_FACTOR: "give a --replication-factor that the brokers can hold",
    KafkaError.INVALID_PARTITIONS: "ask for another number of partitions",
    KafkaError.POLICY_VIOLATION: "keep to the rules of the broker, or create it yourself",
}


def _raise_unless_made(name: str, error: KafkaException) -> None:
    cause = error.args[0]
    if cause.code() == KafkaError.TOPIC_EXCEPTION:
        # Kafka names the topic that it collides with.
        raise SettingsError(
            f"topic {name} cannot be created: {cause.str().rstrip('.')}: to Kafka's metrics . and _ in a name are the "
            "same; take another name"
        ) from error
    if way := _WAYS.get(cause.code()):
        raise SettingsError(f"topic {name} cannot be created: {cause.str().rstrip('.')}: {way}") from error
    if cause.code() != KafkaError.TOPIC_ALREADY_EXISTS:
        refused = " (that needs Create on it, or on the cluster)" * (cause.code() in REFUSALS)
        raise translate(f"topic {name} could not be created{refused}", cause) from error


def require_no_collision(admin: AdminClient, names: Iterable[str]) -> None:
    """Raise SettingsError if Kafka could not create the topic beside an existing one (`.` and `_` are one to it)."""
    with kafka_errors("list of topics"):
        there = admin.list_topics(timeout=REQUEST_TIMEOUT).topics
    for name in names:
        if name not in there and (other := find_collision(name, there)):
            raise SettingsError(describe_collision(name, other))


def list_offsets(
    admin: AdminClient,
    topic: str,
    partitions: Iterable[int],
    spec: Any,
    *,
    committed: bool = True,
) -> dict[int, int]:
    """Return partition → offset of one topic; see `list_all_offsets`."""
    return list_all_offsets(admin, {topic: partitions}, spec, committed=committed)[topic]


@_patiently
def list_all_offsets(
    admin: AdminClient,
    topics: Mapping[str, Iterable[int]],
    spec: Any,
    *,
    committed: bool = True,
) -> dict[str, dict[int, int]]:
    """Return topic → partition → offset. `committed`: LATEST is the last stable offset, else the high watermark.

    The admin client's own default is the high watermark, even for a `read_committed` reader.
    """
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    asked = {TopicPartition(topic, partition): spec for topic, partitions in topics.items() for partition in partitions}
    offsets: dict[str, dict[int, int]] = {topic: {} for topic in topics}
    if not asked:
        return offsets
    with kafka_errors(f"offsets of topic {', '.join(topics)}"):
        futures = admin.list_offsets(asked, isolation_level=level, request_timeout=REQUEST_TIMEOUT)
        try:
            for place, future in futures.items():
                offsets[place.topic][place.partition] = _known(place, future.result().offset)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._NOENT:
                # A topic that we may not see has no known leader either: this call says so.
                for topic in topics:
                    describe_topic(admin, topic)
            raise
    return offsets


def _known(place: TopicPartition, offset: int) -> int:
    """Return the offset; KafkaTransientError for the result that librdkafka gives if a leader dies meanwhile."""
    if offset == OFFSET_INVALID:
        error = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
        raise translate(f"offsets of topic {place.topic} partition {place.partition}", error)
    return offset


def group_offsets(connection: Connection, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return partition → committed offset of the group, for those of the partitions that have one.

    A consumer asks, which does not join the group: on the same question librdkafka 2.16 crashes the process of an admin
    client whose coordinator has just moved, or has never been asked for.
    https://github.com/confluentinc/librdkafka/issues/5040
    """
    with closing(make_consumer(connection, group)) as consumer:
        return _committed(consumer, group, [TopicPartition(topic, partition) for partition in partitions])


@_patiently
def _committed(consumer: Consumer, group: str, asked: list[TopicPartition]) -> dict[int, int]:
    """Ask for stable offsets, as a `read_committed` consumer does: Kafka answers a commit before they are."""
    with kafka_errors(f"offsets of group {group}"):
        found = consumer.committed(asked, REQUEST_TIMEOUT) if asked else []
        if error := next((place.error for place in found if place.error), None):
            raise KafkaException(error)
    return {place.partition: place.offset for place in found if place.offset >= 0}
