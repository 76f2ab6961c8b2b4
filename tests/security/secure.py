"""A broker that demands TLS, authentication and permissions: three listeners beside the super user's plain one."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tasks.broker.embedded import HOST, EmbeddedBroker, _free_port
from tasks.kafka.ledger import ensure_ledger
from tasks.settings.job import Job
from tests.cluster import Cluster, sample_values, wait_for
from tests.command import Command
from tests.documents import text_of
from tests.security.certificates import Issued, issue, make_authority

USER = "sorter"
PASSWORD = f"hunter2-{uuid4().hex}"


@dataclass(frozen=True)
class Grant:
    """One operation on one resource; `row` of the table in docs/security.md."""

    row: str
    kind: ResourceType
    name: str
    operation: AclOperation

    @property
    def binding(self) -> AclBinding:
        return AclBinding(
            self.kind,
            self.name,
            ResourcePatternType.LITERAL,
            f"User:{USER}",
            "*",
            self.operation,
            AclPermissionType.ALLOW,
        )


_KINDS = {"transactional id": ResourceType.TRANSACTIONAL_ID, "group": ResourceType.GROUP}
_ROW = re.compile(
    r"^\| ((?:transactional id|group|topic|source topic|outputs|dead-letter topic)[^|]*) \|([^|]*)\|([^|]*)\|$",
    re.MULTILINE,
)


def rows_of() -> list[tuple[str, list[str], list[str]]]:
    """The table in docs/security.md: resource, operations to sort and to verify, as Kafka's protocol calls them."""
    rows = _ROW.findall(text_of("docs/security.md"))
    return [(row.strip(), _operations(sort), _operations(verify)) for row, sort, verify in rows]


def _operations(cell: str) -> list[str]:
    return [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).upper() for word in re.findall(r"\w+", cell)]


def all_of(job: Job, *, verify: bool | None = None) -> list[Grant]:
    """Return the grants of docs/security.md for a job: to sort and verify, or (`verify`) for one of them."""
    found = []
    for row, sort, verified in rows_of():
        kind = next((kind for start, kind in _KINDS.items() if row.startswith(start)), ResourceType.TOPIC)
        wanted = {None: [*sort, *verified], True: verified, False: sort}[verify]
        found += [Grant(row, kind, name, AclOperation[o]) for name in _names(job, row) for o in dict.fromkeys(wanted)]
    return found


def all_to_read(job: Job) -> list[Grant]:
    """Return the grants of docs/security.md for a reader of all outputs."""
    table = text_of("docs/security.md").partition("| resource | to read |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return [
        Grant(row, ResourceType.TOPIC, name, AclOperation[operation])
        for row, cell in rows
        for name in _names(job, row)
        for operation in _operations(cell.partition(";")[0])
    ]


def _names(job: Job, row: str) -> list[str]:
    """Return the names of the resources that a row stands for."""
    if found := re.search(r"`(.*)<job>(.*)`", row):
        return [f"{found[1]}{job.name}{found[2]}"]
    outputs = [sort.topic for sort in job.sort_list]
    return {"source topic": [job.source_topic], "outputs": outputs, "dead-letter topic": [job.dead_letters]}[row]


class Secure:
    """The broker, its listeners, and its files."""

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        self.folder = folder
        self.authority = make_authority(folder, "authority")
        self.server = issue(folder, "server", self.authority, ("localhost", HOST))
        self.other = issue(folder, "other", self.authority, ("kafka.example.com",))
        self.client = issue(folder, USER, self.authority)
        self.stranger = issue(folder, "stranger", make_authority(folder, "nobody"))
        self.ports = {name: _free_port() for name in ("SCRAM", "MTLS", "OTHER")}
        self.broker = EmbeddedBroker(properties=properties | self._properties())

    def address(self, listener: str) -> str:
        return f"{HOST}:{self.ports[listener]}"

    @cached_property
    def cluster(self) -> Cluster:
        """The super user's cluster, which is kept: an answer does not come if its client is collected."""
        return Cluster(self.broker.bootstrap_servers)

    def _properties(self) -> dict[str, str]:
        addresses = ",".join(f"{name}://{self.address(name)}" for name in self.ports)
        return {
            "listeners": addresses,
            "advertised.listeners": addresses,
            "listener.security.protocol.map": "SCRAM:SASL_SSL,MTLS:SSL,OTHER:SSL",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # Clients of the plain listener, on loopback: the broker itself, and the test that sets it up.
            "super.users": "User:ANONYMOUS",
            **_keys("scram", self.server),
            **_keys("mtls", self.server),
            **_keys("other", self.other),
            "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.truststore.type": "PEM",
            "listener.name.mtls.ssl.truststore.location": str(self.authority.path),
            "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^CN=([a-z]+)$/$1/",
        }

    def set_password(self) -> None:
        update = UserScramCredentialUpsertion(
            USER, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode()
        )
        for future in self.cluster.admin.alter_user_scram_credentials([update]).values():
            future.result()

    def grant(self, grants: Iterable[Grant]) -> None:
        bindings = [grant.binding for grant in grants]
        for future in self.cluster.admin.create_acls(bindings).values():
            future.result()
        wait_for(lambda: all(self._is_granted(binding) for binding in bindings))

    def revoke(self, grants: Iterable[Grant]) -> None:
        for grant in grants:
            for future in self.cluster.admin.delete_acls([_filter(grant.binding)]).values():
                future.result()
            wait_for(lambda binding=grant.binding: not self._is_granted(binding))  # type: ignore[misc]

    @contextmanager
    def granted(self, grants: Iterable[Grant]) -> Iterator[None]:
        """Grant it for the block."""
        grants = list(grants)
        self.grant(grants)
        try:
            yield
        finally:
            self.revoke(grants)

    def _is_granted(self, binding: AclBinding) -> bool:
        return bool(self.cluster.admin.describe_acls(_filter(binding)).result())

    def kafka_file(self, listener: str = "SCRAM", **over: str) -> Path:
        """Write a properties file for the user of this listener; `over` with underscores for dots."""
        who = {
            "SCRAM": {
                "security.protocol": "sasl_ssl",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": USER,
                "sasl.password": PASSWORD,
            },
            "MTLS": {
                "security.protocol": "ssl",
                "ssl.certificate.location": str(self.client.path),
                "ssl.key.location": str(self.client.key_path),
            },
            "OTHER": {"security.protocol": "ssl"},
        }[listener]
        properties = {
            "bootstrap.servers": self.address(listener),
            "ssl.ca.location": str(self.authority.path),
            **who,
            **{name.replace("_", "."): value for name, value in over.items()},
        }
        path = self.folder / f"{uuid4().hex}.properties"
        path.touch(0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in properties.items() if value))
        return path


class Sorter(Command):
    """Runs `kafka-sort` as the user that the broker knows."""

    def __init__(self, secure: Secure, workdir: Path) -> None:
        super().__init__(secure.cluster, workdir)
        self.secure = secure

    def prepare(self, records: int = 200, **over: object) -> Job:
        """Make a job whose topics all exist, as a careful administrator creates them."""
        source = self.cluster.make_topic()
        self.cluster.produce(source, [*sample_values(records), b"no row"])
        job = self.job(source, **over)
        for name in (*(sort.topic for sort in job.sort_list), job.dead_letters):
            self.cluster.make_topic(name=name)
        ensure_ledger(self.cluster.admin, job.ledger, 1)
        return job

    def flags(self, listener: str = "SCRAM", **over: str) -> tuple[str, ...]:
        """Return flags of the command line; `over` as `kafka_file` takes it."""
        file = self.secure.kafka_file(listener, **over)
        return ("--bootstrap-servers", self.secure.address(listener), "--kafka-config", str(file))


def _keys(listener: str, issued: Issued) -> dict[str, str]:
    return {
        f"listener.name.{listener}.ssl.keystore.type": "PEM",
        f"listener.name.{listener}.ssl.keystore.location": str(issued.both),
    }


def _filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )
