"""The columns of sorted files: names that readers tell apart, types, and the order that they may rely on."""

import pyarrow as pa
import pytest

from tasks.file_columns import file_columns, text_columns, unique_names
from tasks.settings.job import Job

RECORD = ["value", "key", "headers", "timestamp", "partition", "offset"]


def make_job(columns: str, *sorts: str) -> Job:
    return Job(source_topic="s", columns=columns, sorts=[f"{sort}=parquet:/f{i}" for i, sort in enumerate(sorts)])


def test_names() -> None:
    """Keys come first, by their names in the job; a name that another has, in whatever case, gets an underscore."""
    job = make_job("Value:int,offset,offset_", "Value,offset,offset_")
    names = file_columns(job, job.sort_list[0]).schema.names
    assert names == ["Value", "offset", "offset_", "value_", "key", "headers", "timestamp", "partition", "offset__"]
    assert unique_names(["a", "A", "a_", "b"]) == ["a", "A_", "a__", "b"]


def test_types() -> None:
    """Each type of key has one type of column, whatever the data; the record is as the source has it."""
    job = make_job("a:int,b:decimal,c:float,d:bool,e:time,f:time(ms),g:uuid,h,i:text(nocase)", "a,b,c,d,e,f,g,h,i")
    schema = file_columns(job, job.sort_list[0]).schema
    time = pa.timestamp("ns", "UTC")
    keys = [pa.int64(), pa.string(), pa.float64(), pa.bool_(), time, time, pa.uuid(), pa.string(), pa.string()]
    assert schema.types[:9] == keys
    assert schema.names[9:] == RECORD
    assert schema.types[9:11] == [pa.binary(), pa.binary()]
    assert schema.types[12:] == [pa.timestamp("ms", "UTC"), pa.int32(), pa.int64()]


@pytest.mark.parametrize(
    ("sort", "prefix"),
    [
        ("a:desc,h:nulls-first,a2", [(0, True, False), (1, False, True), (2, False, False)]),
        ("a,b,h", [(0, False, False)]),
        ("h:text(nocase),a", []),
        ("h:text(de),a", []),
        ("c,a", [(0, False, False), (1, False, False)]),
    ],
)
def test_the_order_that_files_claim(sort: str, prefix: list[tuple[int, bool, bool]]) -> None:
    """The claim ends before the first key whose column compares in another way: printed decimals, folded texts."""
    job = make_job("a:int,a2:int,b:decimal,c:float,h", sort)
    claimed = file_columns(job, job.sort_list[0]).sorting
    assert [(c.column_index, c.descending, c.nulls_first) for c in claimed] == prefix


def test_texts_that_a_chunk_must_keep() -> None:
    """Only texts that compare as something else are kept beside their keys, and only if files need them."""
    job = make_job("a,b:text(nocase),c:text(de)", "b,a", "c")
    assert text_columns(job) == {"b": "t1", "c": "t2"}
    topics = Job(source_topic="s", columns="b:text(nocase),c", sorts=["b=t", "c=parquet:/f"])
    assert text_columns(topics) == {}
    assert [str(key.type) for key in topics.key_columns] == ["text(nocase)", "text(utf8)"]


def test_texts_of_a_job_with_files_are_utf8() -> None:
    """So each sort of the job refuses the same records; columns that no sort names stay any bytes."""
    job = Job(source_topic="s", columns="a,b,c:int,d", sorts=["a=t", "c,b=parquet:/f"])
    assert {name: str(kind) for name, kind in job.column_types.items()} == {
        "a": "text(utf8)",
        "b": "text(utf8)",
        "c": "int",
        "d": "text",
    }
    alone = Job(source_topic="s", columns="a,b", sorts=["a=t"])
    assert str(alone.key_columns[0].type) == "text"
