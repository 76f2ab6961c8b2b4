"""The connection: how to reach Kafka. The process that runs resolves it; a flow parameter must hold no secrets.

Guarantees: a file that holds a secret is read only if nobody else can read it; no error and no `repr` shows a value;
records cross a network in the clear only where that was permitted by name.
"""

import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, cast
from urllib.parse import urlsplit

from pydantic import Field

from tasks.errors import SettingsError
from tasks.settings.registry import REGISTRY_FROM_ENVIRONMENT, REGISTRY_SECRETS, split_registry

DEFAULT_BOOTSTRAP_SERVERS = "localhost:9092"

# librdkafka refuses the Java clients' names; these replace them.
_JAVA_NAMES = {
    "sasl.jaas.config": "sasl.username and sasl.password",
    "ssl.truststore.location": "ssl.ca.location (PEM)",
    "ssl.keystore.location": "ssl.certificate.location and ssl.key.location (PEM)",
    "ssl.truststore.password": "ssl.ca.location (PEM, without a password)",
    "ssl.keystore.password": "ssl.key.password",
}
# Properties of Java's property files that have no meaning here.
_JAVA_IGNORED = ("key.serializer", "value.serializer", "key.deserializer", "value.deserializer")
# The protocol itself sets these: another value would break a guarantee.
_RESERVED = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.idempotence",
        "group.id",
        "group.instance.id",
        "isolation.level",
        "partition.assignment.strategy",
        "request.required.acks",  # another name of acks
        "transactional.id",
        "transaction.timeout.ms",
    }
)

# A folder of profiles: one file NAME.properties each.
PROFILES = "KAFKA_SORT_PROFILES"
# A flow's parameter that names a connection, so that no secret is among the parameters.
ProfileName = Annotated[str, Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", examples=["production"])] | None
# Variables are KAFKA_ and the property in capitals, such as KAFKA_SASL_PASSWORD. They are listed here, since Kafka's
# own scripts, containers and clusters also call their variables KAFKA_….
FROM_ENVIRONMENT = {
    f"KAFKA_{name.upper().replace('.', '_')}": name
    for name in (
        "security.protocol",
        "sasl.mechanism",
        "sasl.username",
        "sasl.password",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.key.location",
        "ssl.key.pem",
        "ssl.key.password",
    )
}
ALLOW_PLAINTEXT = "KAFKA_SORT_ALLOW_PLAINTEXT"
_SECRETS = frozenset(
    {
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    }
)
_IN_THE_CLEAR = frozenset({"plaintext", "sasl_plaintext"})
_NO = frozenset({"", "0", "false", "no"})
_SECRET_FILES = ("ssl.key.location", "ssl.keystore.location", "schema.registry.ssl.key.location")

_current: ContextVar["Connection | None"] = ContextVar("connection", default=None)


@dataclass(frozen=True)
class Connection:
    """The librdkafka properties that reach one cluster, and those of its schema registry; `repr` shows the address."""

    bootstrap_servers: str = DEFAULT_BOOTSTRAP_SERVERS
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    # Those of a schema registry, without their prefix.
    registry: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_plaintext: bool = field(default=False, repr=False, compare=False)
    # The name by which another process loads the same connection; None if it has none.
    profile: str | None = field(default=None, repr=False, compare=False)

    def client_config(self) -> dict[str, str | int | float | bool]:
        """Return the properties that every client starts from."""
        return {**self.properties, "bootstrap.servers": self.bootstrap_servers}


@contextmanager
def use_connection(connection: Connection) -> Iterator[None]:
    """Make `connection` the result of `current_connection`, here and in tasks started from here."""
    token = _current.set(connection)
    try:
        yield
    finally:
        _current.reset(token)


def current_connection() -> Connection:
    """Return the connection in use; if none is, that of the environment."""
    return _current.get() or resolve_connection()


@contextmanager
def use_profile(name: str | None) -> Iterator[None]:
    """Use the connection of that name in the block; None: the one in use, or that of the environment."""
    with use_connection(current_connection() if name is None else load_profile(name)):
        yield


def load_profile(name: str) -> Connection:
    """Load a profile: the file NAME.properties in KAFKA_SORT_PROFILES, in the form of KAFKA_CONFIG_FILE.

    With that variable unset, Prefect's Secret block kafka-sort-NAME holds the same text. Other variables for
    connections are ignored.
    """
    if folder := os.environ.get(PROFILES):
        properties = _read_properties(Path(folder) / f"{name}.properties")
    else:
        properties = _parse_properties(_read_block(f"kafka-sort-{name}"), f"Secret block kafka-sort-{name}")
    servers = properties.pop("bootstrap.servers", None)
    connection = _make_connection(servers, properties, allow_plaintext=_permits_plaintext(os.environ))
    return replace(connection, profile=name)


def resolve_connection(
    bootstrap_servers: str | None = None,
    config_file: Path | None = None,
    extra: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    allow_plaintext: bool = False,
) -> Connection:
    """Resolve the connection from flags, then environment, then the properties file, then the default address.

    `extra` are `name=value` texts. SettingsError names the property that cannot be used, or the file that others can
    read, or the host that would be reached in the clear without `allow_plaintext`.
    """
    env = os.environ if environment is None else environment
    path = config_file or (Path(env["KAFKA_CONFIG_FILE"]) if env.get("KAFKA_CONFIG_FILE") else None)
    properties = _read_properties(path) if path else {}
    from_file = properties.pop("bootstrap.servers", None)
    variables = FROM_ENVIRONMENT | REGISTRY_FROM_ENVIRONMENT
    properties.update({name: env[variable] for variable, name in variables.items() if env.get(variable)})
    properties.update(_split_property(item, "-X") for item in extra)
    from_extra = properties.pop("bootstrap.servers", None)
    servers = bootstrap_servers or from_extra or env.get("KAFKA_BOOTSTRAP_SERVERS") or from_file
    return _make_connection(servers, properties, allow_plaintext=allow_plaintext or _permits_plaintext(env))


def _make_connection(servers: str | None, properties: Mapping[str, str], *, allow_plaintext: bool) -> Connection:
    """Raise SettingsError if a property cannot be used, others can read a key, or records would go in the clear."""
    kafka, registry = split_registry(properties)
    for name, value in properties.items():
        _check_property(name)
        if name in _SECRET_FILES:
            check_key_file(Path(value), name)
    usable = {name: value for name, value in kafka.items() if name not in _JAVA_IGNORED}
    connection = Connection(servers or DEFAULT_BOOTSTRAP_SERVERS, usable, registry, allow_plaintext)
    if not allow_plaintext:
        _check_encrypted(connection)
    return connection


def _read_block(name: str) -> str:
    # This import is slow, and only needed if a flow asks for the block.
    from prefect.blocks.system import Secret

    try:
        return str(cast("Secret[str]", Secret.load(name)).get())
    except ValueError:
        raise SettingsError(
            f"there is no Secret block {name} in Prefect: create it with the Kafka properties as its value, or set "
            f"{PROFILES} to a folder of profiles"
        ) from None


def _read_properties(path: Path) -> dict[str, str]:
    try:
        with path.open() as file:
            status, text = os.fstat(file.fileno()), file.read()
    except (OSError, ValueError) as error:
        raise SettingsError(f"Kafka config file {path}: {error}") from None
    properties = _parse_properties(text, str(path))
    if secrets := sorted((_SECRETS | REGISTRY_SECRETS) & properties.keys()):
        _check_private(path, status, f"it holds {', '.join(secrets)}")
    return properties


def _parse_properties(text: str, where: str) -> dict[str, str]:
    stripped = (line.strip() for line in text.splitlines())
    return dict(_split_property(line, where) for line in stripped if line and not line.startswith("#"))


def check_key_file(path: Path, name: str) -> None:
    """Raise SettingsError if the file of a private key is absent, or if others can read it."""
    try:
        status = path.stat()
    except OSError as error:
        raise SettingsError(f"{name} {path}: {error.strerror}") from None
    _check_private(path, status, f"it is {name}")


def _check_private(path: Path, status: os.stat_result, reason: str) -> None:
    """Apply PostgreSQL's rule for keys: ours alone, or root's and readable by our group, as in containers."""
    mode = stat.S_IMODE(status.st_mode)
    private = {0: 0o640, os.geteuid(): 0o600}
    if mode & ~private.get(status.st_uid, 0):
        raise SettingsError(
            f"{path} has mode {mode:04o} and belongs to user {status.st_uid}, and {reason}: "
            f"make it yours alone (chown {os.geteuid()}, chmod 600 {path})"
        )


def _permits_plaintext(environment: Mapping[str, str]) -> bool:
    return environment.get(ALLOW_PLAINTEXT, "") not in _NO


def _check_encrypted(connection: Connection) -> None:
    default = connection.properties.get("security.protocol", "plaintext")
    for server in connection.bootstrap_servers.split(","):
        # librdkafka lets an address name its own protocol.
        protocol, _, address = server.strip().rpartition("://")
        if (protocol or default).lower() in _IN_THE_CLEAR and not is_loopback(address):
            raise SettingsError(
                f"{address} is not on this machine, and with security.protocol={protocol or default} records and "
                "passwords would cross the network in the clear: set security.protocol to ssl or sasl_ssl, or permit "
                f"it with --allow-plaintext ({ALLOW_PLAINTEXT}=1)"
            )


def is_in_the_clear(address: str) -> bool:
    """Whether what is sent to a web address crosses a network without encryption."""
    scheme, _, rest = address.partition("://")
    return scheme.lower() == "http" and not is_loopback(rest.partition("/")[0])


def is_loopback(address: str) -> bool:
    """Judge by the text of the address: with DNS, its answer would decide."""
    try:
        host = urlsplit(f"//{address}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split_property(text: str, where: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        # The text may hold a secret: the message says where it is, and does not repeat it.
        raise SettingsError(f"{where}: a Kafka property must be written name=value")
    return name.strip(), value.strip()


def _check_property(name: str) -> None:
    if name in _JAVA_NAMES:
        raise SettingsError(f"{name} is a property of the Java client: use {_JAVA_NAMES[name]}")
    if name in _RESERVED:
        raise SettingsError(f"{name} cannot be set: exactly-once relies on the value the sorter gives it")
