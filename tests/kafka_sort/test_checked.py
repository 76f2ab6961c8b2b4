"""`kafka-sort check`: what a run refuses before any work is refused, and nothing is changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kafka_sort.checked import check_job, describe
from tasks.errors import SettingsError
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.streaming import Streaming
from tests.cluster import Cluster
from tests.command import Command, Outcome
from tests.registry_server import serve_registry

NOWHERE = Connection("127.0.0.1:1")

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "job.toml"
        file.write_text(text)
        return file

    return write


def check(command: Command, file: Path, *flags: str) -> Outcome:
    return command.start_flags(
        "check", "--job", str(file), "--workdir", str(command.workdir / "absent"), *flags
    ).finish()


def topics_of(cluster: Cluster) -> set[str]:
    """Return all topics but Kafka's own, of which it makes one for the first question about a group."""
    return {name for name in cluster.admin.list_topics(timeout=10).topics if not name.startswith("__")}


@pytest.mark.slow
def test_a_job_that_can_run(cluster: Cluster, command: Command, write: Write) -> None:
    """Its settings and derived names are shown; no topic, no group and no folder is created."""
    source = cluster.make_topic()
    before = topics_of(cluster)
    file = write(f'source-topic = "{source}"\nsort = ["id", "name:desc"]\n[stream]\nmax-latency = 0.5\n')
    done = check(command, file, "--retries", "7")
    assert done.status == 0, done.err
    shown = " ".join(done.out.replace("│", " ").split())
    for words in (f"id → {source}-by-id", "retries 7", "max_latency 0.5", f"kafka-sort.{source}.ledger", "id → int"):
        assert words in shown
    assert f"job {source}: nothing is wrong with it" in done.out
    assert topics_of(cluster) == before
    assert not (command.workdir / "absent").exists()


def test_one_object(command: Command, cluster: Cluster, write: Write) -> None:
    """For a script it is one line of JSON: all settings of the job and of a stream, and what derives from them."""
    source = cluster.make_topic()
    done = check(command, write(f'source-topic = "{source}"\nformat = "json"\nsorts = ["a.b"]\n'), "--output", "json")
    assert done.status == 0, done.err
    (line,) = done.out.splitlines()
    found = json.loads(line)
    assert found["job"].keys() == Job.model_fields.keys()
    assert found["stream"].keys() == Streaming.model_fields.keys()
    assert found["derived"] == {
        "name": source,
        "outputs": {"a.b": f"{source}-by-a.b"},
        "types": {"a.b": None},
        "dead_letters": f"{source}-dead-letters",
        "ledger": f"kafka-sort.{source}.ledger",
        "group": f"kafka-sort.{source}",
    }


REFUSED = {
    "an unknown setting": ('souce-topic = "a"', "did you mean source_topic?"),
    "no TOML": ("source-topic = a", "job file"),
    "a setting of another type": ('max-records = "many"', "max_records"),
    "rules between settings": ('sorts = ["@timestamp"]', "add --timestamps keep"),
    "a stream's setting": ("[stream]\nmax-latency = -1", "[stream]"),
    "memory": ('memory-limit = "1MB"', "is too small to work"),
    "an open network": ('runner = "dask"\nscheduler = "tcp://10.0.0.1:1"', "is not on this machine"),
    "no schema": ('format = "avro"\navro-schema = "/dev/null"\nsorts = ["a"]', "is no Avro schema"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_settings(command: Command, write: Write, name: str) -> None:
    """A file that is wrong by itself is refused without Kafka, in one line and with status 2."""
    text, words = REFUSED[name]
    done = check(command, write(text), "--offline", "--bootstrap-servers", NOWHERE.bootstrap_servers)
    assert (done.status, done.out) == (2, ""), done.err
    assert words in done.err
    assert len(done.err.splitlines()) == 1


def test_what_kafka_refuses(cluster: Cluster) -> None:
    """Absent sources, compacted outputs and topics that cannot be created are found as by a run, but not offline."""
    source, output = cluster.make_topic(), cluster.make_topic(cleanup_policy="compact")
    absent = Job(source_topic="absent-topic", sorts=["id"])
    compacted = Job(source_topic=source, sorts=[f"id={output}"])
    replicas = Job(source_topic=source, sorts=["id"], replication_factor=3)
    before = topics_of(cluster)
    for job, words in (
        (absent, "there is no topic absent-topic"),
        (compacted, "cleanup.policy=compact"),
        (replicas, "cannot be created: .*: give a --replication-factor that the brokers can hold"),
    ):
        with pytest.raises(SettingsError, match=words):
            check_job(job, cluster.connection, offline=False)
        check_job(job, NOWHERE, offline=True)
    assert topics_of(cluster) == before


def test_a_stream_that_cannot_be(command: Command, write: Write) -> None:
    """What no stream can follow is refused if the file, or a flag, has settings of one; a table may be empty."""
    here = ("--offline", "--bootstrap-servers", NOWHERE.bootstrap_servers)
    for table, flags, status in (("", [], 0), ("[stream]\n", [], 2), ("", ["--max-latency", "2"], 2)):
        done = check(command, write(f'mode = "replace"\n{table}'), *flags, *here)
        assert done.status == status, done.err
        assert ("--mode replace is for kafka-sort sort" in done.err) == bool(status)


@pytest.mark.raises("BrokerUnavailableError")
def test_without_a_broker(command: Command, write: Write) -> None:
    """Without --offline a broker has to answer."""
    done = check(command, write(""), "--bootstrap-servers", NOWHERE.bootstrap_servers, "--start-timeout", "1")
    assert done.status == 2
    assert "no broker answered" in done.err


def test_types_that_the_first_run_finds() -> None:
    """A type that is not known yet is null."""
    assert describe(Job(format="json", sorts=["a:int", "b"]), Streaming())["derived"]["types"] == {
        "a": "int",
        "b": None,
    }


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["check", "sort"])
def test_credentials_of_a_registry(cluster: Cluster, command: Command, write: Write, verb: str) -> None:
    """Those in the connection's file count for the checks as well."""
    pytest.importorskip("confluent_kafka.schema_registry")
    source = cluster.make_topic()
    with serve_registry() as registry:
        registry.want_basic("me", "hunter2")
        file = write(
            f'source-topic = "{source}"\nformat = "avro"\nsorts = ["a"]\nschema-registry = "{registry.address}"'
        )
        secrets = command.workdir.parent / "secret.properties"
        secrets.touch(0o600)
        secrets.write_text("schema.registry.basic.auth.user.info=me:hunter2")
        flags = ("--job", str(file), "--workdir", str(command.workdir))
        refused = command.start_flags(verb, *flags).finish()
        assert refused.status == 2
        assert "refuses the credentials" in refused.err
        done = command.start_flags(verb, *flags, "--kafka-config", str(secrets)).finish()
    assert done.status == 0, done.err
