"""Wrong settings and unfit topics: one line that says what, where and what to do; exit 2; before any work."""

import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType

import pytest

from kafka_sort.main import run_command
from tasks.kafka.topics import describe_topic
from tests.cluster import Cluster, Record, sample_values
from tests.command import Command, Outcome
from tests.stages import make_job, run_once

NO_BROKER = "127.0.0.1:1"


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status == 2, outcome.err
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("kafka-sort: ")
    for word in words:
        assert word in lines[0]
    assert outcome.out == ""


KafkaSort = Callable[..., Outcome]


@pytest.fixture
def kafka_sort(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> KafkaSort:
    """Run `kafka-sort sort` in this process, since an early refusal needs no process of its own."""
    monkeypatch.setattr("kafka_sort.main._start", lambda _: None)
    # A Prefect server would stay for the next command and say so.
    started: Future[None] = Future()
    started.set_result(None)
    monkeypatch.setattr("kafka_sort.main.start_prefect", lambda: started)
    # If nothing is refused, no run must follow.
    terminal = ModuleType("kafka_sort.terminal")
    terminal.__dict__["run_sort"] = lambda *_: None
    monkeypatch.setitem(sys.modules, "kafka_sort.terminal", terminal)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr("sys.argv", ["kafka-sort", "sort", *arguments])
        status = run_command()
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


# Flags, and words that the line must have.
SETTINGS = {
    "no broker": (["--start-timeout", "0.3"], [NO_BROKER, "kafka-sort broker", "--bootstrap-servers"]),
    "unknown column": (["--sort", "id", "--sort", "age"], ["'age'", "id, name, address, continent"]),
    "a sort twice": (["--sort", "id=a", "--sort", "id=b"], ["'id'", "twice"]),
    "a column twice": (["--sort", "id,id"], ["id,id", "twice"]),
    "two sorts to one topic": (["--sort", "id=a", "--sort", "name=a"], ["'a'", "COLUMNS=TOPIC"]),
    "output is the source": (["--source-topic", "s", "--sort", "id=s"], ["'s'", "source"]),
    "output is the dead letters": (["--source-topic", "s", "--sort", "id=s-dead-letters"], ["dead-letter"]),
    "no such direction": (["--sort", "id:down"], ["id:down", ":asc|:desc"]),
    "empty sort": (["--sort", ""], ["COLUMN"]),
    "bad topic": (["--source-topic", "no spaces"], ["'no spaces'", "a-z"]),
    "bad output": (["--sort", "id=ä"], ["'ä'"]),
    "bad job name": (["--job-name", "a/b"], ["'a/b'"]),
    "job name too long": (["--job-name", "x" * 240], ["249"]),
    "column of no type": (["--columns", "id:double,name,address,continent"], ["'double'", "int, decimal, float"]),
    "delimiter too long": (["--delimiter", "::"], ["delimiter"]),
    "delimiter that is a quote": (["--delimiter", '"'], ["delimiter"]),
    "delimiter that is a line end": (["--delimiter", "\n"], ["delimiter"]),
    "delimiter beyond ASCII": (["--delimiter", "§"], ["delimiter"]),
    "memory too small": (["--memory-limit", "100MB"], ["100 MB", "768 MB"]),
    "memory no size": (["--memory-limit", "much"], ["'much'", "2GB"]),
    "memory zero": (["--memory-limit", "0"], ["at least"]),
    "too many sorts at once": (["--sort-concurrency", "99"], ["sort_concurrency"]),
    "no records": (["--max-records", "0"], ["max_records"]),
    "start is nonsense": (["--start", "yesterday"], ["'yesterday'", "2026-01-31T12:00:00Z"]),
    "end is nonsense": (["--end", "tomorrow"], ["end (--end)", "'tomorrow'", "now or a time as 2026-01-31T12:00:00Z"]),
    "end before the start": (
        ["--start", "2026-02-01T00:00:00Z", "--end", "2026-02-01T00:30:00+01:00"],
        ["end (--end)", "2026-02-01T00:30:00+01:00 is before the start, 2026-02-01T00:00:00Z"],
    ),
    "end in the past, start latest": (["--start", "latest", "--end", "2026-02-01"], ["--end 2026-02-01", "latest"]),
    "timestamps": (["--timestamps", "old"], ["timestamps"]),
    "partitions of another kind": (["--partition-by", "size"], ["'size'", "range", "hash", "source"]),
    "hash without keys": (["--partition-by", "hash", "--output-key", "none"], ["--partition-by", "--output-key none"]),
    "hash of equal texts that differ": (
        ["--partition-by", "hash", "--output-key", "sort", "--sort", "name:text(nocase)"],
        ["--partition-by", "name as text(nocase)"],
    ),
    "hash of a language": (
        ["--partition-by", "hash", "--output-key", "sort", "--sort", "id", "--sort", "id:desc,name:text(de)"],
        ["--partition-by", "name as text(de)"],
    ),
    "hash with split keys": (
        ["--partition-by", "hash", "--split-heavy-keys"],
        ["--split-heavy-keys", "--partition-by range"],
    ),
    "source with split keys": (["--partition-by", "source", "--split-heavy-keys"], ["--split-heavy-keys"]),
    "number is a word": (["--max-records", "many"], ["many"]),
    "unknown flag": (["--no-such-flag"], ["--no-such-flag"]),
    "an argument too many": (["source"], ["source"]),
    "job file missing": (["--job", "/no/such/file.toml"], ["/no/such/file.toml"]),
    "Kafka config missing": (["--kafka-config", "/no/such/file"], ["/no/such/file"]),
    "-X without a value": (["-X", "linger.ms"], ["-X", "name=value"]),
    "-X unknown": (["-X", "no.such.property=1"], ["no.such.property"]),
    "-X of a wrong type": (["-X", "linger.ms=soon"], ["linger.ms"]),
    "-X reserved": (["-X", "transactional.id=mine"], ["transactional.id", "exactly-once"]),
    "-X of Java": (["-X", "sasl.jaas.config=x"], ["sasl.jaas.config", "sasl.username"]),
    "address without meaning": (
        ["--bootstrap-servers", "localhost:port", "--start-timeout", "0.3"],
        ["localhost:port"],
    ),
}


@pytest.mark.parametrize(("flags", "words"), SETTINGS.values(), ids=SETTINGS)
def test_wrong_settings(kafka_sort: KafkaSort, tmp_path: Path, flags: list[str], words: list[str]) -> None:
    """They are found without a broker and without Prefect, and reported in one line."""
    given = ["--bootstrap-servers", NO_BROKER, "--workdir", str(tmp_path / "work"), *flags]
    assert_refused(kafka_sort(*given), *words)


JOB_FILES = {
    "no TOML": ("sorts = [", "job.toml"),
    "unknown setting": ('colour = "red"', "colour"),
    "wrong type": ('max_records = "few"', "max_records"),
    "sorts is text": ('sorts = "id"', "sorts"),
    "bytes": ("\x00", "job.toml"),
}


@pytest.mark.parametrize(("text", "word"), JOB_FILES.values(), ids=JOB_FILES)
def test_a_bad_job_file(kafka_sort: KafkaSort, tmp_path: Path, text: str, word: str) -> None:
    """The line names the file's setting."""
    file = tmp_path / "job.toml"
    file.write_text(text)
    assert_refused(kafka_sort("--job", str(file)), word)


def test_a_job_file_that_is_no_text(kafka_sort: KafkaSort, tmp_path: Path) -> None:
    """A file that is not UTF-8, or a folder, makes no traceback either."""
    file = tmp_path / "job.toml"
    file.write_bytes(b"\xff\xfe")
    assert_refused(kafka_sort("--job", str(file)), "job.toml")
    assert_refused(kafka_sort("--job", str(tmp_path)), str(tmp_path))


def test_a_kafka_config_that_is_no_text(kafka_sort: KafkaSort, tmp_path: Path) -> None:
    """The file with the properties may hold anything, and makes no traceback."""
    file = tmp_path / "client.properties"
    file.write_bytes(b"a=\xff\xfe")
    assert_refused(kafka_sort("--kafka-config", str(file)), "client.properties")
    file.write_text("secret without equals sign\n")
    outcome = kafka_sort("--kafka-config", str(file))
    assert_refused(outcome, "client.properties", "name=value")
    assert "secret" not in outcome.err


def test_environment_is_checked_alike(kafka_sort: KafkaSort, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting in the environment is reported with the name of its variable."""
    monkeypatch.setenv("KAFKA_SORT_MAX_RECORDS", "few")
    assert_refused(kafka_sort(), "max_records")


def test_a_workdir_that_cannot_be_written(kafka_sort: KafkaSort, tmp_path: Path) -> None:
    """A file may stand in its place, or above it."""
    file = tmp_path / "file"
    file.touch()
    for workdir in (file, file / "below"):
        outcome = kafka_sort("--bootstrap-servers", NO_BROKER, "--workdir", str(workdir))
        assert_refused(outcome, str(workdir), "--workdir")


# State beside a source before the start: extra flags, and words that the line must have.
Early = Callable[[Cluster, str], tuple[list[str], list[str]]]


def unknown_topic(_: Cluster, source: str) -> tuple[list[str], list[str]]:
    return ["--source-topic", f"{source}-not"], [f"{source}-not", "--source-topic"]


def compacted_output(cluster: Cluster, _: str) -> tuple[list[str], list[str]]:
    output = cluster.make_topic(cleanup_policy="compact")
    return ["--sort", f"id={output}"], [output, "cleanup.policy=compact"]


def output_that_takes_less(cluster: Cluster, _: str) -> tuple[list[str], list[str]]:
    output = cluster.make_topic(max_message_bytes="1000")
    return ["--sort", f"id={output}"], [output, "max.message.bytes=1000", "1048588"]


def compacted_dead_letters(cluster: Cluster, _: str) -> tuple[list[str], list[str]]:
    letters = cluster.make_topic(cleanup_policy="compact")
    return ["--dead-letter-topic", letters], [letters, "cleanup.policy=compact"]


def wrong_ledger(cluster: Cluster, source: str) -> tuple[list[str], list[str]]:
    ledger = cluster.make_topic(1, f"kafka-sort.{source}.ledger", cleanup_policy="delete")
    return [], [ledger, "cleanup.policy=delete"]


def colliding_output(cluster: Cluster, source: str) -> tuple[list[str], list[str]]:
    there = cluster.make_topic(name=f"{source}.by.id")
    return ["--sort", f"id={source}_by_id"], [f"'{source}_by_id' collides with topic '{there}'", "another name"]


def colliding_dead_letters(cluster: Cluster, source: str) -> tuple[list[str], list[str]]:
    there = cluster.make_topic(name=f"{source}.dead")
    return ["--dead-letter-topic", f"{source}_dead"], [there, f"{source}_dead", "collides"]


def fewer_than_the_source(_: Cluster, source: str) -> tuple[list[str], list[str]]:
    return ["--partition-by", "source", "--output-partitions", "3"], [
        "--output-partitions 3",
        f"the 4 partitions of source {source}",
    ]


EARLY = [
    fewer_than_the_source,
    colliding_output,
    colliding_dead_letters,
    unknown_topic,
    compacted_output,
    output_that_takes_less,
    compacted_dead_letters,
    wrong_ledger,
]


@pytest.mark.parametrize("make", EARLY)
def test_unfit_topics(kafka_sort: KafkaSort, cluster: Cluster, tmp_path: Path, make: Early) -> None:
    """They are found before Prefect starts; no output is created."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(20))
    flags, words = make(cluster, source)
    given = ["--bootstrap-servers", cluster.bootstrap_servers, "--workdir", str(tmp_path / "work")]
    assert_refused(kafka_sort(*given, "--source-topic", source, "--sort", f"name={source}-names", *flags), *words)
    assert describe_topic(cluster.admin, f"{source}-names") is None


# State beside a source before the start: the job's settings, and words that the line must have.
Late = Callable[[Cluster, str, Path], tuple[dict[str, object], list[str]]]


def sorted_once(cluster: Cluster, source: str, folder: Path) -> str:
    """Make run 1 of a job with the source's name; return its output."""
    output = f"{source}-ids"
    run_once(cluster, make_job(source, folder, sorts=[f"id={output}"]), folder)
    return output


def output_holds_records(cluster: Cluster, _: str, __: Path) -> tuple[dict[str, object], list[str]]:
    output = cluster.make_topic(2)
    cluster.produce_records(output, [Record(b"of somebody else", partition=1)])
    return {"sorts": [f"id={output}"]}, [output, "--append"]


def lost_ledger(cluster: Cluster, source: str, folder: Path) -> tuple[dict[str, object], list[str]]:
    output = sorted_once(cluster, source, folder)
    cluster.delete_topic(f"kafka-sort.{source}.ledger")
    return {"sorts": [f"id={output}"]}, ["ledger", "--append"]


def other_sorts(cluster: Cluster, source: str, folder: Path) -> tuple[dict[str, object], list[str]]:
    output = sorted_once(cluster, source, folder)
    return {"sorts": [f"id:desc={output}"]}, [f"id={output}", f"id:desc={output}", "--job-name"]


def other_columns(cluster: Cluster, source: str, folder: Path) -> tuple[dict[str, object], list[str]]:
    output = sorted_once(cluster, source, folder)
    return {"sorts": [f"id={output}"], "columns": "id,name,address,continent"}, ["columns", "--job-name"]


def other_source(cluster: Cluster, source: str, folder: Path) -> tuple[dict[str, object], list[str]]:
    output, other = sorted_once(cluster, source, folder), cluster.make_topic()
    return {"job_name": source, "source_topic": other, "sorts": [f"id={output}"]}, [other, "--job-name"]


def start_of_a_later_run(cluster: Cluster, source: str, folder: Path) -> tuple[dict[str, object], list[str]]:
    output = sorted_once(cluster, source, folder)
    return {"sorts": [f"id={output}"], "start": "latest"}, ["--start", "run 1"]


def transaction_too_long(_: Cluster, __: str, ___: Path) -> tuple[dict[str, object], list[str]]:
    return {"transaction_timeout": 100_000.0}, ["--transaction-timeout", "transaction.max.timeout.ms"]


LATE = [
    output_holds_records,
    lost_ledger,
    other_sorts,
    pytest.param(other_columns, marks=pytest.mark.slow),
    pytest.param(other_source, marks=pytest.mark.slow),
    start_of_a_later_run,
    transaction_too_long,
]


@pytest.mark.parametrize("make", LATE)
def test_a_job_that_does_not_fit_its_topics(cluster: Cluster, command: Command, tmp_path: Path, make: Late) -> None:
    """Contradictions that only the ledger or the outputs show are found before any work, too."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(20))
    over, words = make(cluster, source, tmp_path)
    job = command.job(source, **over)
    outputs = [sort.topic for sort in job.sort_list]
    before = {name: cluster.ends(name, committed=False) for name in outputs}
    assert_refused(command.run(job), *words)
    assert {name: cluster.ends(name, committed=False) for name in outputs} == before
