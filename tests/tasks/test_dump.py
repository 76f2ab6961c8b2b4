"""The key columns of chunks; ranges and their chunks are in test_chunks.py and with the broker in kafka/."""

import numpy as np
import pyarrow as pa
import pytest

from tasks.arrow import HEADERS
from tasks.dump import RowGroup
from tasks.formats.record_fields import RecordFields
from tasks.kafka.fetch import Block
from tasks.settings.job import Job


@pytest.mark.parametrize("backwards", [False, True])
def test_columns_of_a_chunk_are_numbered_as_the_job_does(*, backwards: bool) -> None:
    """A sort names its columns by the job's numbers, whatever the order of a format's keys."""
    job = Job(source_topic="s", format="none", sorts=["@key,@header.a"])
    headers = pa.array([[("a", b"1")], [("a", b"2")]], HEADERS)
    block = Block(
        pa.nulls(2, pa.binary()), pa.array([b"y", b"x"], pa.binary()), headers, np.zeros(2, np.int64), np.arange(2)
    )
    group = RowGroup(0)
    group.add(block)
    keys = job.key_columns
    rows, _ = group.split(job, RecordFields(keys[::-1] if backwards else keys), job.key_columns)
    assert [rows.column(name).to_pylist() for name in ("k0", "k1")] == [[b"y", b"x"], [b"1", b"2"]]
