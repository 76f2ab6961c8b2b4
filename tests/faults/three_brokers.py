"""Three brokers in three JVMs, which are all controllers too; two of three replicas must have each record."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copyfile, rmtree
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Protocol, Self

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription
from tenacity import retry, retry_if_exception_type, stop_after_delay

from tasks.broker.embedded import HOST, EmbeddedBroker, _free_port, _random_id
from tasks.broker.runtime import load_runtime
from tests.cluster import wait_for
from tests.conftest import BROKER_PROPERTIES

_REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # A leader that stops in order hands over; one that is killed is noticed soon.
    "controlled.shutdown.enable": "true",
    "replica.lag.time.max.ms": "3000",
}


class Place(Protocol):
    """The host of a broker: it has an address, and runs programs."""

    @property
    def address(self) -> str: ...

    def within(self, *command: str) -> list[str]: ...


class Here:
    """This machine."""

    address = HOST

    def within(self, *command: str) -> list[str]:
        return [*command]


class ThreeBrokers:
    """The cluster, as a context manager; broker n has node id n, from 1 on. `places`: of the brokers, in this order."""

    def __init__(self, places: Sequence[Place] = (Here(), Here(), Here())) -> None:
        self._home = Path(mkdtemp(prefix="kafka-sort-three-"))
        self._places = dict(enumerate(places, 1))
        controllers = {node: f"{place.address}:{_free_port()}" for node, place in self._places.items()}
        voters = ",".join(f"{node}@{address}" for node, address in controllers.items())
        cluster_id = _random_id()
        self.brokers = {node: self._make(node, address, voters, cluster_id) for node, address in controllers.items()}

    def _make(self, node: int, controller: str, voters: str, cluster_id: str) -> EmbeddedBroker:
        folder = self._home / str(node)
        (folder / "kafka").mkdir(parents=True)
        copyfile(load_runtime().checkpoint, folder / "kafka" / "bootstrap.checkpoint")
        (folder / "kafka" / "meta.properties").write_text(
            f"version=1\nnode.id={node}\ncluster.id={cluster_id}\ndirectory.id={_random_id()}\n"
        )
        own = {
            "node.id": str(node),
            "controller.quorum.voters": voters,
            # This listener stands beside the one of that kind that a single broker has; its address is known to others.
            "controller.listener.names": "QUORUM",
            "listeners": f"QUORUM://{controller}",
            "listener.security.protocol.map": "QUORUM:PLAINTEXT",
        }
        place = self._places[node]
        how: dict[str, Any] = {"heap": "256m", "host": place.address, "within": place.within()}
        return EmbeddedBroker(data=folder, properties=BROKER_PROPERTIES | _REPLICATED | own, **how)

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers.values())

    def __enter__(self) -> Self:
        self.start(*self.brokers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for broker in self.brokers.values():
            broker.kill()
        rmtree(self._home, ignore_errors=True)

    def start(self, *nodes: int) -> None:
        """Start all at once: a single one has no quorum, and does not answer."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: self.brokers[node].start(120), nodes))
        # A broker answers before the controllers let it lead.
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        wait_for(lambda: len(admin.list_topics(timeout=30).brokers) == len(self.brokers), 60)

    def leader(self, topic: str, partition: int) -> int:
        """Return the node that leads the partition; -1 if none does."""
        # The leader may be None, which its type does not say.
        leader: Any = self._describe(topic).partitions[partition].leader
        return leader.id if leader else -1

    @retry(retry=retry_if_exception_type(KafkaException), stop=stop_after_delay(120), reraise=True)
    def _describe(self, topic: str) -> TopicDescription:
        """Describe the topic, with retries while the controllers elect one of them."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        found: TopicDescription = admin.describe_topics(TopicCollection([topic]), request_timeout=10)[topic].result()
        return found

    def coordinator(self, topic: str, name: str) -> int:
        """Return the node that leads the partition of a coordinators' topic for a group or transactional id."""
        return self.leader(topic, java_hash(name) % len(self._describe(topic).partitions))


def java_hash(text: str) -> int:
    """Compute `Utils.abs(text.hashCode())`, by which Kafka chooses the coordinator."""
    value = 0
    for character in text:
        value = (value * 31 + ord(character)) & 0xFFFFFFFF
    return value & 0x7FFFFFFF
