"""`kafka-sort inspect`: tables for a person, a job file or one object, whatever the topic holds."""

import json
import tomllib
from pathlib import Path

import pytest

from kafka_sort.inspection import print_inspection
from tasks.settings.job import load_job
from tests.cluster import Cluster, Record
from tests.command import Command
from tests.inspected import documents, keys, rows, spread
from tests.stages import run_once

Captured = pytest.CaptureFixture[str]


def show(cluster: Cluster, topic: str, capsys: Captured, output: str = "table") -> tuple[str, str]:
    """Return standard output and standard error of an inspection."""
    print_inspection(cluster.connection, topic, None, output)
    printed = capsys.readouterr()
    return printed.out, printed.err


@pytest.mark.slow
def test_inspect_and_sort(cluster: Cluster, command: Command) -> None:
    """What it prints on standard output is a job file that `check` and `sort` take as it is."""
    source = cluster.make_topic()
    cluster.produce(source, rows())
    inspected = command.start_flags("inspect", source).finish()
    assert inspected.status == 0, inspected.err
    file = command.workdir.parent / "job.toml"
    file.write_text(inspected.out)
    for verb in ("check", "sort"):
        done = command.start_flags(verb, "--job", str(file), "--workdir", str(command.workdir)).finish()
        assert done.status == 0, done.err
    values = [(r.value or b"").split(b",")[0] for r in cluster.read(f"{source}-by-c1")]
    assert values == sorted(values, key=int)
    assert len(values) == len(rows())
    # Another inspection proposes other names, since these are taken.
    again = tomllib.loads(command.start_flags("inspect", source).finish().out)
    assert (again["job-name"], again["sorts"]) == (f"{source}-2", [f"c1={source}-by-c1-2"])
    assert again["dead-letter-topic"] == f"{source}-dead-letters-2"


def test_the_tables(cluster: Cluster, capsys: Captured) -> None:
    """A person reads what is in the topic: records, format, columns, keys, headers, times, and what does not fit."""
    topic = cluster.make_topic(2, cleanup_policy="compact,delete", retention_ms="86400000")
    some = [Record(value, b"k%d" % i, (("trace", b"1"),)) for i, value in enumerate(documents())]
    cluster.produce_records(topic, [*some, Record(b"no JSON", b"a"), Record(None, b"b"), Record(b"", b"c")])
    out, err = show(cluster, topic, capsys)
    told = [
        "2, of 0 to 63 offsets",
        "63, at 63 offsets",
        "63 records of 1 partition",
        "1 (2%)",
        "1, as that of partition 0 offset 60: not JSON (expecting value, byte 0): 'no JSON'",
        "trace (95%)",
        "in order within the partitions",
        "compact,delete",
        "1 day",
        "items[0].sku",
        "heavy: its partition is much larger than others",
    ]
    for words in told:
        assert words in " ".join(err.replace("│", " ").split()), words
    assert "1 record without a value" in out
    assert "1 value of the sample is something else" in out
    assert tomllib.loads(out)["source-topic"] == topic


def test_one_object(cluster: Cluster, capsys: Captured) -> None:
    """For a script it is one line of JSON, with the job file in it, and nothing else."""
    topic = cluster.make_topic(2)
    cluster.produce_records(topic, spread([*documents(), b"\xff"], [*keys(), None]))
    out, err = show(cluster, topic, capsys, "json")
    assert not err
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["partitions"] == {"0": {"start": 0, "end": 31}, "1": {"start": 0, "end": 30}}
    assert (found["records"], found["records_are_exact"], found["sampled"]) == (
        61,
        True,
        {"records": 61, "partitions": 2},
    )
    assert found["values"] | {"example": None} == {
        "kind": "JSON",
        "notes": [],
        "tombstones": 0,
        "empty": 0,
        "other": 1,
        "example": None,
    }
    assert found["values"]["example"]["offset"] == 30
    assert found["columns"][0] == {
        "name": "customer.id",
        "type": "int",
        "records": 60,
        "nulls": 0,
        "distinct": 60,
        "commonest": "0",
        "commonest_records": 1,
        "heavy": False,
        "remark": "",
    }
    assert found["keys"]["kind"] == "text"
    assert found["keys"]["nulls"] == 1
    assert found["job"] == {name.replace("-", "_"): v for name, v in tomllib.loads(found["job_file"]).items()}
    assert "@key:nulls-last" in found["other_sorts"]


HOSTILE = 'x\x1b[31m\x9b2J\n\u202e"],=:[bold]\x7f\u2028\U0001f600'


@pytest.mark.slow
def test_hostile_data(cluster: Cluster, capsys: Captured, tmp_path: Path) -> None:
    """No terminal obeys a name, a key, a header or a value, and none of them breaks the table or the job file."""
    topic = cluster.make_topic(1)
    fine = 'total, "net" = [bold]:\U0001f600\\'
    values = [json.dumps({HOSTILE: "a", fine: i, "v": HOSTILE * (i % 2)}).encode() for i in range(40)]
    odd = [Record(value, b"\xff\x1b[2J%d" % i, ((HOSTILE, b"x"),)) for i, value in enumerate(values)]
    cluster.produce_records(topic, [*odd, Record(HOSTILE.encode())])
    out, err = show(cluster, topic, capsys)
    for text in (out, err):
        assert not [c for c in text if not c.isprintable() and c != "\n"]
        assert "\u202e" not in text
    file = tmp_path / "job.toml"
    file.write_text(out)
    job = load_job({"workdir": tmp_path / "work"}, {}, file)
    (key,) = job.key_columns
    assert key.name == '"total, ""net"" = [bold]:\U0001f600\\"'
    assert run_once(cluster, job, tmp_path).dead_letters == 1


@pytest.mark.slow
def test_hostile_headings(cluster: Cluster, capsys: Captured, tmp_path: Path) -> None:
    """Names in header lines are quoted as a job takes them."""
    topic = cluster.make_topic(1)
    cluster.produce(topic, [b'"a,""b"";=",@key,\x1b[2J,\xff\n%d,x,y,%d' % (i, i) for i in range(40)], 1)
    out, err = show(cluster, topic, capsys)
    assert "\x1b" not in out + err
    assert "its name is no UTF-8" in err
    file = tmp_path / "job.toml"
    file.write_text(out)
    job = load_job({"workdir": tmp_path / "work"}, {}, file)
    assert [(key.name, str(key.type)) for key in job.key_columns] == [('"a,""b"";="', "int")]
    assert run_once(cluster, job, tmp_path).records == 40


REFUSED = {
    "no topic": (["absent-topic"], "there is no topic absent-topic"),
    "no name": (["a b"], "TOPIC 'a b' is not a valid topic name"),
    "no address": (["t", "--schema-registry", "ftp://x"], "is no address"),
    "no registry": (["t", "--schema-registry", "http://user:pw@x"], "holds credentials"),
    "no argument": ([], "Missing argument 'TOPIC'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(command: Command, name: str) -> None:
    """Bad input is one line and status 2, and nothing is printed for a job file."""
    flags, words = REFUSED[name]
    done = command.start_flags("inspect", *flags).finish()
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert len(done.err.splitlines()) == 1
