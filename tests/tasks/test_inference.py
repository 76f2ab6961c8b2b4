"""Types that a job does not give are inferred by its first run, only as wide as can be, and recorded."""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from tasks.arrow import HEADERS, RECORD
from tasks.errors import SettingsError
from tasks.formats.guess import guess_format
from tasks.formats.kinds import find_kinds, usual_types
from tasks.inference import UnknownTypeError, infer_types, warn_of_types
from tasks.preflight import take_up_job
from tasks.sample import MostlyDeadLettersError, Sample, SampledRecord
from tasks.settings.job import Job
from tasks.snapshot import take_snapshot
from tests.cluster import Cluster, Record, sample_values
from tests.stages import make_job, owned, run_once


def make_sample(job: Job, values: Sequence[bytes | None]) -> Sample:
    count = len(values)
    columns = [pa.array(list(values), pa.binary()), pa.nulls(count, pa.binary()), pa.nulls(count, HEADERS)]
    numbers = pa.array(range(count), pa.int64())
    records = pa.Table.from_arrays([*columns, numbers, numbers, pa.nulls(count, pa.int32())], schema=RECORD)
    kinds = find_kinds(job, records)
    return Sample(tuple(SampledRecord(0, i, 1, None, "", seen) for i, seen in enumerate(kinds)))


def infer(*values: bytes | None, sort: str = "a") -> dict[str, str]:
    job = Job(source_topic="s", format="json", sorts=[f"{sort}=t"])
    return infer_types(job, make_sample(job, values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b'{"a":1}', b'{"a":1.5}', b'{"a":-2e9}'], "decimal"),
        ([b'{"a":"x"}', b'{"a":"7"}', b'{"a":"2026-01-31T12:00:00Z"}'], "text"),
        ([b'{"a":"7"}'], "text"),
        ([b'{"a":true}', b'{"a":false}', b'{"a":null}', b"{}"], "bool"),
        ([b'{"a":1}', b"no JSON", None, b""], "decimal"),
    ],
)
def test_inferred_types(values: list[bytes | None], expected: str) -> None:
    """Only present values of documents count; `int` and `time` are never inferred."""
    assert infer(*values) == {"a": expected}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([b'{"a":1}', b'{"a":2}', b'{"a":"x"}'], "hold 2 numbers, 1 strings there"),
        ([b'{"a":null}', b"{}", b"{}"], "have no value there (1 null, 2 without it)"),
        ([b"x"], "have no value there (none can be read)"),
        ([b'{"a":1}', b'{"a":true}'], "hold 1 numbers, 1 true or false there"),
    ],
)
def test_what_has_no_type(values: list[bytes], words: str) -> None:
    """The line says what was seen, and how to give a type."""
    with pytest.raises(UnknownTypeError, match=re.escape(words)) as raised:
        infer(*values)
    assert "give it one, as --sort a:text" in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            [b'{"a":{}}', b'{"a":[]}', b'{"a":[]}'],
            "hold 2 arrays, 1 objects there: sort by what is within, as --sort a[0]",
        ),
        ([b'{"a":{}}'], "hold 1 objects there: sort by what is within, as --sort a.NAME"),
        ([b'{"a":[1]}', b'{"a":null}'], "hold 1 arrays there: sort by what is within, as --sort a[0]"),
    ],
)
def test_what_no_type_takes(values: list[bytes], words: str) -> None:
    """A type would not help: no type takes objects and arrays."""
    with pytest.raises(UnknownTypeError, match=re.escape(words)) as raised:
        infer(*values)
    assert "give it one" not in str(raised.value)


def test_what_is_not_inferred() -> None:
    """Given types stay; without a record nothing is inferred."""
    job = Job(source_topic="s", format="json", sorts=["a:int,b=t"], columns="b:text,c:int")
    assert job.untyped == ()
    assert infer_types(job, make_sample(job, [b"{}"])) == {}
    assert infer() == {}


def test_paths_and_keys() -> None:
    """A path leads into objects and arrays; the job that results has it written in its sorts, and the same topics."""
    value = b'{"items":[{"sku":"x"}],"b.c":1,"d":true}'
    job = Job(source_topic="s", format="json", sorts=['items[0].sku,"b.c":desc:nulls-last', "d", "e:int"])
    types = infer_types(job, make_sample(job, [value]))
    assert types == {"items[0].sku": "text", '"b.c"': "decimal", "d": "bool"}
    typed = job.with_types(types)
    assert typed.sorts[0].startswith('items[0].sku:text,"b.c":decimal:desc:nulls-last=')
    assert typed.untyped == ()
    assert [str(sort) for sort in typed.sort_list] == [str(sort) for sort in job.sort_list]
    assert typed.name == job.name
    assert usual_types(job, [{"d": "number"}, {"d": "bool"}, {"d": "bool"}]) == {"d": "bool"}


def test_texts_that_look_like_others() -> None:
    """A warning says so where all of a column do; types that are given say that it is meant."""
    job = Job(source_topic="s", format="json", sorts=["a,b,c=t"])
    sample = make_sample(job, [b'{"a":"7","b":"2026-01-31 12:00:00Z","c":"7"}', b'{"a":"-1.5e3","b":null,"c":"x"}'])
    with capture_logs() as lines:
        warn_of_types(job, sample, infer_types(job, sample))
    told = [(line.get("column"), "times" in line["event"]) for line in lines if line["log_level"] == "warning"]
    assert told == [("a", False), ("b", True)]
    (inferred,) = [line["types"] for line in lines if line["event"] == "types inferred"]
    assert inferred == "a:text, b:text, c:text"


@pytest.mark.parametrize(
    ("fmt", "value", "words"),
    [
        ("csv", b'{"a": 1}', "looks like JSON: --format json"),
        ("json", b"1;x;y", "looks like CSV, with 3 fields between ';': --format csv"),
        ("json", b"\x00\x00\x00\x00\x07ab", "Confluent's wire format: magic byte 0, then schema id 7"),
        ("json", b'{"b":1,"c":2}', "looks like JSON, with the names b, c"),
        ("json", b"<a/>", "looks like XML"),
        ("json", None, "most have no value (tombstones), and a document is in the value"),
    ],
)
def test_hints(fmt: str, value: bytes | None, words: str) -> None:
    """What does not fit is named, with the flag that does."""
    job = Job.model_validate({"source_topic": "s", "format": fmt, "sorts": ["id=t"]})
    assert words in guess_format([value] * 5, job)


def test_a_csv_column_of_numbers_is_warned_about(cluster: Cluster, tmp_path: Path) -> None:
    """The first run of a CSV job says that a column without a type holds numbers."""
    source = cluster.make_topic(1)
    cluster.produce(source, [b"7,x", b"-8,7", b"9,z"], 1)
    job = make_job(source, tmp_path, columns="id,name", sorts=["id,name=t-" + source])
    with owned(cluster, job) as owner, capture_logs() as lines:
        assert take_snapshot(owner).types == {}
    assert [line["column"] for line in lines if "look like numbers" in line["event"]] == ["id"]


@pytest.mark.raises("UnknownTypeError")
def test_types_are_fixed_by_the_first_run(cluster: Cluster, tmp_path: Path) -> None:
    """The ledger has what was inferred, and later runs take it, whatever they read; another type is refused."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path, format="json", sorts=[f"a,b:int:nulls-last=t-{source}"])
    with owned(cluster, job) as owner:
        assert take_snapshot(owner).types == {}
    cluster.produce(source, [b'{"a":"x","b":1}', b'{"a":7}'], 1)
    with owned(cluster, job) as owner, pytest.raises(UnknownTypeError, match="1 numbers"):
        take_snapshot(owner)
    cluster.produce(source, [b'{"a":"y","b":2}'] * 3, 1)
    given = make_job(source, tmp_path, format="json", sorts=[f"a:text,b:int:nulls-last=t-{source}"])
    assert run_once(cluster, given, tmp_path).format["columns"] == "a:text,b:int"
    cluster.produce(source, [b'{"a":8}', b'{"a":"z"}'], 1)
    later = run_once(cluster, job, tmp_path)
    assert (later.run, later.records, later.dead_letters) == (2, 2, 1)
    assert later.format == {"name": "json", "columns": "a:text,b:int", "rules": "2"}
    other = make_job(source, tmp_path, format="json", sorts=[f"a:text,b:text:nulls-last=t-{source}"])
    with pytest.raises(SettingsError, match="has columns 'a:text,b:int' by its ledger"), owned(cluster, other):
        pass


def test_dead_letters_that_are_permitted(cluster: Cluster, tmp_path: Path) -> None:
    """With them a type is inferred from what is there; without them a first run of mostly CSV is refused."""
    source = cluster.make_topic(1)
    cluster.produce(source, [*sample_values(8), b'{"a":"x"}'], 1)
    sorts = [f"a=t-{source}"]
    with (
        owned(cluster, make_job(source, tmp_path, format="json", sorts=sorts)) as owner,
        pytest.raises(MostlyDeadLettersError, match="looks like CSV.*--format csv; .*correct --format, --sort or"),
    ):
        take_snapshot(owner)
    permitted = make_job(source, tmp_path, format="json", sorts=sorts, allow_dead_letters=True)
    record = run_once(cluster, permitted, tmp_path)
    assert (record.placed, record.dead_letters, record.format["columns"]) == (1, 8, "a:text")


@pytest.mark.parametrize(("column", "keys"), [("@key.id", [b'{"id":"x"}', b'{"id":"w"}']), ("@key", [b'"x"', b'"w"'])])
def test_keys_in_json(cluster: Cluster, tmp_path: Path, column: str, keys: list[bytes]) -> None:
    """Their types are inferred and recorded as those of values are; values are not looked at."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path, format="none", key_format="json", sorts=[f"{column}=t-{source}"])
    cluster.produce_records(source, [Record(b"no JSON", key) for key in keys])
    record = run_once(cluster, job, tmp_path)
    assert [record.placed, record.format["key_format"]] == [2, "json"]
    assert [r.key for r in cluster.read(f"t-{source}")] == keys[::-1]
    cluster.produce_records(source, [Record(None, b"7")])
    assert run_once(cluster, job, tmp_path).dead_letters == 1


def test_the_types_of_a_ledger_are_taken_up(cluster: Cluster, tmp_path: Path) -> None:
    """They are taken once, by the run that owns the job."""
    source = cluster.make_topic(1)
    cluster.produce(source, [b'{"a":"x"}'], 1)
    job = make_job(source, tmp_path, format="json", sorts=[f"a=t-{source}"])
    run_once(cluster, job, tmp_path)
    with owned(cluster, job) as owner:
        assert owner.job.sorts == [f"a:text=t-{source}"]
        take_up_job(owner)
        assert owner.job.untyped == ()
