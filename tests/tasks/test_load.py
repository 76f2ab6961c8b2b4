"""Loads on a real broker: each line once, in its place, and how far a load came when it ended early."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tasks.errors import SettingsError, StoppedError, TerminalError
from tasks.fill import Filler
from tasks.kafka import native_produce
from tasks.load import Loaded, LoadFailedError, LoadStoppedError, load_files
from tasks.loading import files
from tasks.loading.layout import LoadSettings
from tasks.loading.rows import open_files
from tasks.run_context import run_context
from tests.cluster import Cluster, Record

LINES = [f"{i},name {i * 7919 % 1000},{'x' * (i % 40)}".encode() for i in range(6000)]
TEXT = b"\n".join(LINES) + b"\n"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files in blocks of some hundreds of lines."""
    monkeypatch.setattr(files, "BLOCK_BYTES", 20_000)


def write(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def load(cluster: Cluster, topic: str, *paths: str, **given: object) -> Loaded:
    settings = LoadSettings(paths, topic, **given)  # type: ignore[arg-type]  # named by the test
    layout = settings.check()
    return load_files(cluster.connection, settings, layout, open_files(settings, layout))


def by_partition(cluster: Cluster, topic: str) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {partition: [] for partition in cluster.ends(topic)}
    for record in cluster.read(topic):
        found[record.partition].append(record)
    return found


@pytest.mark.parametrize("way", ["native", "plain"])
def test_each_line_is_a_record(
    cluster: Cluster, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Lines of several files, also compressed ones, come once each, in order, spread evenly, and without keys."""
    if way == "plain":
        monkeypatch.setattr(native_produce, "AVAILABLE", False)
    topic = f"{cluster.make_topic(1)}-{way}"
    paths = [write(tmp_path, "a.txt", TEXT[:-1]), write(tmp_path, "b.gz", gzip.compress(b"h\n\nend\r\n"))]
    loaded = load(cluster, topic, *paths, partitions=3)
    expected = [*LINES, b"h", b"end"]
    assert {p: [r.value for r in rows] for p, rows in by_partition(cluster, topic).items()} == {
        p: expected[p::3] for p in range(3)
    }
    assert {record.key for record in cluster.read(topic)} == {None}
    assert (loaded.reached.records, loaded.reached.empty, loaded.partitions) == (6_002, 1, 3)


def test_a_topic_is_appended_to(cluster: Cluster, tmp_path: Path) -> None:
    """A topic that exists keeps its partitions and its records; a header line of each file is left out."""
    topic = cluster.make_topic(2)
    cluster.produce(topic, [b"before"], 1)
    path = write(tmp_path, "a.csv", b"\xef\xbb\xbfid,x\r\n1,2\r\n3,4\r\n")
    assert load(cluster, topic, path, path, partitions=9, skip_header=True).reached.records == 4
    values = [[r.value for r in rows] for rows in by_partition(cluster, topic).values()]
    assert values == [[b"before", b"1,2", b"1,2"], [b"3,4", b"3,4"]]


def produce_like_java(cluster: Cluster, topic: str, keys: list[bytes | None]) -> None:
    """Let librdkafka choose partitions as Kafka's Java producer does."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(topic, b"", key)
        producer.poll(0)
    assert producer.flush(30) == 0


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_key_goes_where_other_producers_put_it(
    cluster: Cluster, tmp_path: Path, small_blocks: None, kind: str
) -> None:
    """Each key is in the partition that librdkafka gives it by `murmur2_random`, and equal keys keep their order."""
    chance = random.Random(5)
    keys = [str(chance.choice([chance.randrange(500), chance.randbytes(9).hex()])) for _ in range(3000)]
    rows = [
        f'"{key}",{i}' if kind == "csv" else f'{{"n": {i}, "at": {{"key": "{key}"}}}}' for i, key in enumerate(keys)
    ]
    path = write(tmp_path, f"a.{kind}", "\n".join(rows).encode())
    topic, other = cluster.make_topic(7), cluster.make_topic(7)
    given = {"columns": "k,n", "key": "k"} if kind == "csv" else {"key": "at.key"}
    assert load(cluster, topic, path, **given).reached.without_key == 0
    produce_like_java(cluster, other, [key.encode() for key in keys])
    found, wanted = by_partition(cluster, topic), by_partition(cluster, other)
    assert {p: [r.key for r in rows] for p, rows in found.items()} == {
        p: [r.key for r in rows] for p, rows in wanted.items()
    }
    assert {(r.key, r.value) for r in cluster.read(topic)} == {
        (key.encode(), row.encode()) for key, row in zip(keys, rows, strict=True)
    }


def test_a_line_without_its_key(cluster: Cluster, tmp_path: Path) -> None:
    """It becomes a record without a key, and is counted; the first one is named with the reason."""
    path = write(tmp_path, "a.json", b'{"id": 1}\n{"id": 2.50}\n{"x": 1}\nnothing\n{"id": "\\u00e9"}\n')
    topic = cluster.make_topic(1)
    loaded = load(cluster, topic, path, key="id")
    assert [record.key for record in cluster.read(topic)] == [b"1", b"2.50", None, None, "\u00e9".encode()]
    assert (loaded.reached.without_key, loaded.example) == (2, f"{path}, line 3: id is missing")


def test_most_lines_without_a_key_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    """A wrong column is told before any work: then more than half of the first rows have no key."""
    path = write(tmp_path, "a.csv", b"id,x\n1,2\n3,4,5\n6,7,8\n")
    with pytest.raises(SettingsError, match=r"2 of its first 3 rows have no key: line 3: 3 fields, expected 2"):
        load(cluster, "unmade", path, key="id", skip_header=True)
    assert "unmade" not in cluster.admin.list_topics(timeout=10).topics


def stop_after(monkeypatch: pytest.MonkeyPatch, blocks: int, act: Callable[[], object]) -> None:
    """Act before the block behind so many is sent."""
    send = Filler.send

    def count(filler: Filler, block: object) -> None:
        if filler.blocks == blocks:
            act()
        send(filler, block)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(Filler, "send", count)


def assert_goes_on(cluster: Cluster, topic: str, error: Exception, paths: list[str], lines: list[bytes]) -> None:
    """Load the rest as the message says, and see each line once."""
    message = str(error)
    assert f"topic {topic} has {len(cluster.read(topic)):,} records of this load; to go on, load " in message
    first, _, line = message.partition("; to go on, load ")[2].partition(" with --from-line ")
    path = first.removesuffix(" and the files behind it")
    with run_context():
        load(cluster, topic, *paths[paths.index(path) :], from_line=int(line))
    assert sorted(record.value or b"" for record in cluster.read(topic)) == sorted(lines)


def test_a_stopped_load_says_how_far_it_came(
    cluster: Cluster, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count is what the topic has, and with the line that it names the load goes on without a gap."""
    paths = [
        write(tmp_path, "a.txt", TEXT[: len(TEXT) // 3]),
        write(tmp_path, "b.txt", TEXT),
        write(tmp_path, "c", TEXT),
    ]
    topic = cluster.make_topic(3)
    with monkeypatch.context() as patch, run_context() as context:
        stop_after(patch, 8, lambda: context.stop.ask(StoppedError("SIGTERM", 15)))
        stopped = r"SIGTERM: stopped after [0-9,]+ lines of .*b.txt \(2 of 3\)"
        with pytest.raises(LoadStoppedError, match=stopped) as raised:
            load(cluster, topic, *paths)
    assert raised.value.exit_code == 143
    assert 0 < len(cluster.read(topic)) < len(LINES)
    assert_goes_on(cluster, topic, raised.value, paths, [*TEXT[: len(TEXT) // 3].split(b"\n"), *LINES, *LINES])


def test_a_file_that_breaks_off(cluster: Cluster, tmp_path: Path, small_blocks: None) -> None:
    """All lines in front of the break are in the topic, and the message counts them."""
    path = write(tmp_path, "a.gz", gzip.compress(TEXT)[:-9])
    topic = cluster.make_topic(2)
    with pytest.raises(LoadFailedError, match="Truncated compressed stream") as raised:
        load(cluster, topic, path)
    loaded = sorted(record.value or b"" for record in cluster.read(topic))
    assert len(LINES) * 0.9 < len(loaded) < len(LINES)
    assert loaded == sorted(LINES[: len(loaded)])
    Path(path).write_bytes(gzip.compress(TEXT))
    assert_goes_on(cluster, topic, raised.value, [path], LINES)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_line_that_is_too_large(cluster: Cluster, tmp_path: Path, key: str | None) -> None:
    """A line beyond the topic's max.message.bytes is named by file and number; those in front of it are loaded."""
    topic = cluster.make_topic(2, max_message_bytes="5000")
    path = write(tmp_path, "a.csv", b"k,v\n1,a\n2,b\n\n3," + b"y" * 6000 + b"\n4,d\n")
    with pytest.raises(
        LoadFailedError, match=r"a.csv: line 5 is longer than 4,9\d\d bytes.*stopped after 4 lines"
    ) as raised:
        load(cluster, topic, path, key=key, skip_header=True)
    assert raised.value.exit_code == 1
    assert {record.value for record in cluster.read(topic)} == {b"1,a", b"2,b"}
    fits = write(tmp_path, "b.csv", b"x" * 4915)
    assert load(cluster, topic, fits).reached.records == 1


def test_a_topic_that_others_write_to_is_uncertain(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that did not grow by what was sent is reported: something may be missing."""
    topic = cluster.make_topic(2)
    stop_after(monkeypatch, 0, lambda: cluster.produce(topic, [b"of somebody else"], 1))
    with pytest.raises(TerminalError, match="partition 0: 3,000 records were sent, but it grew by 3,001"):
        load(cluster, topic, write(tmp_path, "a.txt", TEXT))


def test_a_line_behind_the_end(cluster: Cluster, tmp_path: Path) -> None:
    """A load that goes on behind the last line has nothing to do; beyond that, the line is a mistake."""
    topic, path = cluster.make_topic(1), write(tmp_path, "a.txt", b"a\nb\n")
    assert load(cluster, topic, path, from_line=3).reached.records == 0
    with pytest.raises(SettingsError, match="--from-line 4: .*a.txt has 2 lines"):
        load(cluster, topic, path, from_line=4)


def test_a_topic_whose_settings_do_not_fit(cluster: Cluster, tmp_path: Path) -> None:
    """A compacted topic is refused, as by `generate`: it would not keep all lines."""
    topic = cluster.make_topic(1, cleanup_policy="compact")
    with pytest.raises(SettingsError, match=r"cleanup.policy=compact"):
        load(cluster, topic, write(tmp_path, "a.txt", TEXT))


@pytest.mark.parametrize("topic", ["__consumer_offsets", "kafka-sort.orders.ledger", "a/b"])
def test_topics_that_are_not_filled(topic: str, tmp_path: Path) -> None:
    """No topic of Kafka's own and no ledger is filled, and its settings are not to be altered for that."""
    with pytest.raises(SettingsError, match="has the name of|is not a valid topic name"):
        LoadSettings((str(tmp_path),), topic).check()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"replication_factor": 3}, "give a --replication-factor that the brokers can hold"),
        ({"partitions": 20_000}, "keep to the rules of the broker"),
    ],
)
def test_a_topic_that_cannot_be_created(
    cluster: Cluster, tmp_path: Path, given: dict[str, object], message: str
) -> None:
    """More replicas than there are brokers, and more partitions than Kafka makes at once, are wrong settings."""
    with pytest.raises(SettingsError, match=message):
        load(cluster, f"{cluster.make_topic()}-new", write(tmp_path, "a.txt", TEXT), **given)
