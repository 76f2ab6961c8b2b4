"""Record keys and partitions of outputs as columns of chunks, beside those that verification computes."""

import struct
from collections.abc import Sequence

import pyarrow as pa
import pytest

from tasks.arrow import HEADERS, RECORD
from tasks.formats.registry import describe_format, make_format
from tasks.keys import chunk_schema, encode_keys
from tasks.placement import KeyOfSort, OutputColumns, PartitionColumn, Placement, place_outputs
from tasks.settings.job import Job
from tasks.verification.keys import RecordKeys
from tasks.verification.output_keys import make_output_keys
from tasks.verification.reading import Block
from tasks.verification.terms import read_sort
from tests.placed import murmur2

COLUMNS = "i:int,d:decimal,f:float,b:bool,t:time,m:time(ms),u:uuid,s,n:text(nocase),l:text(de)"
ROWS = [
    b"7,1.10,1.50,TRUE,2026-07-01 14:00:00.50+02:00,1782907200500,00112233445566778899AABBCCDDEEFF,x,Anna,Otto",
    b"-9223372036854775808,-.5e3,1e16,0,1677-09-21T00:12:44Z,-1,80000000000000000000000000000000,,anna,otto",
    b'0x1F,0.00000000123,-Infinity,1,2026-07-01T12:00Z,0,00112233-4455-6677-8899-aabbccddeeff,"a""b",ANNA,\xc3\x84rger',
    b"9,12345678901234567890123456789012345678,nan,0,2262-04-11T23:47Z,12,%b,\xff\x00,\xc3\x84,z" % (b"0" * 32),
    b",,,,,,,,,",
]


def make_rows(job: Job, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> pa.Table:
    """Make rows of a chunk as the dump does."""
    count = len(values)
    columns = {
        "value": pa.array(values, pa.binary()),
        "key": pa.array(keys, pa.binary()),
        "headers": pa.nulls(count, HEADERS),
        "timestamp": pa.nulls(count, pa.int64()),
    }
    places = {"offset": pa.nulls(count, pa.int64()), "partition": pa.nulls(count, pa.int32())}
    parsed = make_format(job).parse(pa.table({**columns, **places}, RECORD))
    assert not parsed.rejected
    return pa.table({**columns, **encode_keys(job.key_columns, parsed.columns)}, chunk_schema(job.key_columns))


def add_columns(job: Job, counts: Sequence[int], rows: pa.Table, partition: int = 0) -> pa.Table:
    placements = place_outputs(job, counts)
    table = OutputColumns(job, placements).add(rows, partition)
    assert table.schema == placements.extend(rows.schema)
    return table


SINGLE = ["i", "d", "f", "b", "t", "m", "u", "s", "n", "l"]


@pytest.mark.parametrize("columns", [*([name] for name in SINGLE), ["n", "i", "l:desc", "s"], SINGLE])
def test_printed_keys_are_those_of_verification(columns: list[str]) -> None:
    """For each type, null and several columns, both write the same keys; texts are as they were written."""
    by = ",".join(f"{name}{'' if ':' in name else ':asc'}:nulls-last" for name in columns)
    job = Job(source_topic="s", columns=COLUMNS, sorts=[f"{by}=o"], output_key="sort")
    rows = make_rows(job, ROWS, [None] * len(ROWS))
    found = add_columns(job, [3], rows).column("o0").to_pylist()
    sort = read_sort(job.sort_list[0].columns, describe_format(job))
    block = Block(0, pa.array(range(len(ROWS))).to_numpy(), list(ROWS), [None] * len(ROWS), [None] * len(ROWS), [])
    encoded = RecordKeys(describe_format(job), [sort], [sort]).encode(block)
    assert encoded.rejected == []
    assert found == make_output_keys(sort, encoded, block.keys, "text")
    if columns == ["n"]:
        assert found == [b"Anna", b"anna", b"ANNA", "Ä".encode(), b""]
    if columns == ["i"]:
        assert found == [b"7", b"-9223372036854775808", b"31", b"9", None]


@pytest.mark.parametrize(
    ("key_format", "term", "is_own"),
    [
        ("text", "@key", True),
        ("text", "@key:text(de)", True),
        ("text", "@key:int", False),
        ("int32", "@key", True),
        ("int32", "@key:time(s)", True),
        ("json", "@key:text", False),
    ],
)
def test_a_record_key_that_is_the_sort_key(key_format: str, term: str, *, is_own: bool) -> None:
    """Texts, and integers of Kafka's serializers, are taken as they are; what is read out of a key is printed."""
    job = Job(source_topic="s", format="none", key_format=key_format, sorts=[f"{term}=o"], output_key="sort")
    keys: dict[str, bytes] = {"text": b" 07", "int32": struct.pack(">i", 7), "json": b' "a" '}
    rows = make_rows(job, [b""], [keys[key_format]])
    placements = place_outputs(job, [1])
    assert placements.of_sorts == (Placement("key" if is_own else "o0", "", 1),)
    if not is_own:
        assert add_columns(job, [1], rows).column("o0").to_pylist() == [b"7" if key_format == "text" else b"a"]


@pytest.mark.parametrize(
    ("settings", "values", "keys"),
    [
        ({"format": "json", "sorts": ["a.n:text(nocase)=o"]}, [b'{"a": {"n": "\\u00c4b"}}', b'{"a":{"n":"B"}}'], None),
        (
            {"format": "none", "key_format": "json", "sorts": ["@key.n:text(de)=o"]},
            None,
            [b'{"n": "\xc3\x84b"}', b'{"n":"B"}'],
        ),
        ({"csv_header": True, "sorts": ["n:text(nocase)=o"]}, ["n,m\nÄb,1".encode(), b"m,n\r\n2,B"], None),
    ],
    ids=["json", "json key", "header line"],
)
def test_texts_are_read_as_they_were_written(
    settings: dict[str, object], values: list[bytes] | None, keys: list[bytes] | None
) -> None:
    """In any format a text whose order forgets how it was written is the record key as it is."""
    job = Job.model_validate({"source_topic": "s", "output_key": "sort", **settings})
    rows = make_rows(job, values or [None, None], keys or [None, None])
    assert add_columns(job, [1], rows).column("o0").to_pylist() == ["Äb".encode(), b"B"]


def test_hashes_of_record_keys() -> None:
    """A key leads to its murmur2; a record without one is where its source partition leads."""
    keys = [b"a", None, b"", b"key-17"]
    job = Job(source_topic="s", partition_by="hash", sorts=["id=a", "name=b", "continent=c"])
    rows = make_rows(job, [b"1,a,b,c"] * 4, keys)
    table = add_columns(job, [3, 5, 3], rows, partition=7)
    assert table.column_names[-2:] == ["p0", "p1"]
    for name, count in (("p0", 3), ("p1", 5)):
        expected = [7 % count if key is None else murmur2(key) % count for key in keys]
        assert table.column(name).to_pylist() == expected


def test_sorts_share_columns() -> None:
    """One column serves all sorts with the same record keys, and with the same partitions."""
    sorts = ["id=a", "id:desc=b", "name,id=c"]
    job = Job(source_topic="s", partition_by="hash", output_key="sort", sorts=sorts)
    placements = place_outputs(job, [4, 4, 4])
    assert placements.keys == (KeyOfSort("o0", ("id",)), KeyOfSort("o1", ("name", "id")))
    assert placements.partitions == (PartitionColumn("p0", "o0", 4), PartitionColumn("p1", "o1", 4))
    assert placements.of_sorts == (Placement("o0", "p0", 4), Placement("o0", "p0", 4), Placement("o1", "p1", 4))
    source = place_outputs(job.model_copy(update={"partition_by": "source", "output_key": "none"}), [4, 5, 6])
    assert source.partitions == (PartitionColumn("p0", "", 0),)
    assert source.of_sorts == tuple(Placement("", "p0", count) for count in (4, 5, 6))
