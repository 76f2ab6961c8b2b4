"""The sources of the connection, and what it refuses before anything is sent."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.settings.connection import ALLOW_PLAINTEXT, Connection, resolve_connection

SECRET = "hunter2-1f0c"
KafkaFile = Callable[..., Path]


@pytest.fixture
def kafka_file(tmp_path: Path) -> KafkaFile:
    """Write a properties file; 0600 unless another mode is given."""

    def write(text: str, mode: int = 0o600) -> Path:
        file = tmp_path / "client.properties"
        file.write_text(text)
        file.chmod(mode)
        return file

    return write


def resolve(servers: str | None = None, *extra: str, **environment: str) -> Connection:
    return resolve_connection(servers, None, extra, environment)


class TestSecrets:
    def test_come_from_the_environment(self, kafka_file: KafkaFile) -> None:
        """A property of the environment overrides the file's, and one given by -X overrides both."""
        file = kafka_file("sasl.username=of-file\nsasl.password=of-file\nsasl.mechanism=PLAIN\n")
        environment = {
            "KAFKA_CONFIG_FILE": str(file),
            "KAFKA_SASL_PASSWORD": SECRET,
            "KAFKA_SASL_USERNAME": "me",
            "KAFKA_SSL_CA_LOCATION": "",
            "KAFKA_HEAP_OPTS": "-Xmx1g",
        }
        connection = resolve_connection(None, None, ["sasl.username=of-flag"], environment)
        assert connection.properties == {
            "sasl.mechanism": "PLAIN",
            "sasl.password": SECRET,
            "sasl.username": "of-flag",
        }

    def test_are_not_shown(self) -> None:
        """Neither `repr` nor `str` shows them."""
        connection = resolve("localhost:1", KAFKA_SASL_PASSWORD=SECRET)
        assert connection.properties["sasl.password"] == SECRET
        assert SECRET not in f"{connection!r} {connection}"

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
    def test_a_file_that_others_may_read_is_refused(self, kafka_file: KafkaFile, mode: int) -> None:
        """The line names file, mode, property and remedy, and not the secret."""
        file = kafka_file(f"bootstrap.servers=localhost:1\nsasl.password={SECRET}\n", mode)
        with pytest.raises(SettingsError) as raised:
            resolve_connection(None, file, (), {})
        message = str(raised.value)
        for word in (str(file), f"{mode:04o}", "sasl.password", f"chmod 600 {file}"):
            assert word in message
        assert SECRET not in message

    def test_a_file_without_secrets_may_be_read_by_all(self, kafka_file: KafkaFile) -> None:
        """An address is no secret."""
        file = kafka_file("bootstrap.servers=localhost:7\nsecurity.protocol=ssl\n", 0o644)
        assert resolve_connection(None, file, (), {}).bootstrap_servers == "localhost:7"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_a_file_of_somebody_else_is_refused(self, kafka_file: KafkaFile) -> None:
        """The owner of a file can read it, and change where the records go."""
        file = kafka_file(f"sasl.password={SECRET}\n")
        os.chown(file, 12345, 12345)
        with pytest.raises(SettingsError, match="belongs to user 12345"):
            resolve_connection(None, file, (), {})

    def test_a_key_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        """A private key is a secret, wherever its location was given."""
        key = tmp_path / "key.pem"
        key.touch(0o644)
        with pytest.raises(SettingsError, match=rf"chmod 600 {key}"):
            resolve("localhost:1", f"ssl.key.location={key}")
        with pytest.raises(SettingsError, match=r"ssl.key.location /no/key.pem: No such file"):
            resolve("localhost:1", KAFKA_SSL_KEY_LOCATION="/no/key.pem")
        key.chmod(0o400)
        resolve("localhost:1", f"ssl.key.location={key}")


REMOTE = [
    "kafka:9092",
    "kafka",
    "10.0.0.1:9092",
    "0.0.0.0:9092",
    "[2001:db8::1]:9092",
    "localhost.example.com:9092",
    "127.0.0.1.example.com:9092",
    "127.example:9092",
    "localhost:9092,kafka:9092",
    " localhost:9092 , kafka:9092",
    "PLAINTEXT://kafka:9092",
    "localhost:9092,plaintext://10.0.0.1:9092",
    "user@kafka:9092",
    "localhost@kafka:9092",
    "[::1:9092",
    ":9092",
]
LOCAL = ["localhost:9092", "LOCALHOST", "127.0.0.1:9092", "127.8.9.10", "[::1]:9092", "PLAINTEXT://localhost:9092"]


class TestPlaintext:
    @pytest.mark.parametrize("servers", REMOTE)
    @pytest.mark.parametrize("protocol", ["", "plaintext", "SASL_PLAINTEXT"])
    def test_off_this_machine_is_refused(self, servers: str, protocol: str) -> None:
        """The line names the host and both ways out; exit status 2."""
        with pytest.raises(SettingsError, match="--allow-plaintext") as raised:
            resolve(servers, *([f"security.protocol={protocol}"] if protocol else []))
        assert "sasl_ssl" in str(raised.value)
        assert raised.value.exit_code == 2

    @pytest.mark.parametrize("servers", LOCAL)
    def test_on_this_machine_is_permitted(self, servers: str) -> None:
        """Loopback is judged by the address as written, without DNS."""
        assert resolve(servers).bootstrap_servers == servers

    @pytest.mark.parametrize("protocol", ["ssl", "SASL_SSL"])
    def test_an_address_cannot_undo_tls(self, protocol: str) -> None:
        """librdkafka lets an address bring a protocol of its own, which then counts."""
        assert resolve("kafka:9093", f"security.protocol={protocol}").bootstrap_servers == "kafka:9093"
        with pytest.raises(SettingsError, match="kafka:9093 is not on this machine"):
            resolve("PLAINTEXT://kafka:9093", f"security.protocol={protocol}")

    def test_is_permitted_by_name(self) -> None:
        """A flag or the environment permits it."""
        assert resolve_connection("kafka:9092", environment={}, allow_plaintext=True).bootstrap_servers == "kafka:9092"
        assert resolve("kafka:9092", **{ALLOW_PLAINTEXT: "1"}).bootstrap_servers == "kafka:9092"
        for no in ("", "0", "false"):
            with pytest.raises(SettingsError):
                resolve("kafka:9092", **{ALLOW_PLAINTEXT: no})
