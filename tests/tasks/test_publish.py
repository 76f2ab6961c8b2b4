"""What is published is what was read: files that were altered in between are found before the commit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.manifests import SortedPart
from tasks.publish import publish_run
from tasks.publishers.rows import ContentError
from tasks.settings.job import Job
from tests.cluster import Cluster, sample_values
from tests.files import flip
from tests.stages import make_job, owned, prepare


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Job:
    """A job over 1000 records in 4 partitions."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(1000))
    return make_job(source, tmp_path)


def test_records_that_were_altered(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A flipped bit between sort and publish is found before the commit."""
    value = next(r.value for r in cluster.read(job.source_topic) if r.value)
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        flip(publication.sorts[0].parts[0].files, value)
        with pytest.raises(ContentError, match="1000 rows to publish are not the 1000 that were read"):
            publish_run(owner, publication)
    assert cluster.count(job) == 0
    assert cluster.ledger(job).last is None


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda order: order[:999], "the 999 rows to publish"),
        (lambda order: np.where(order == order[1], order[0], order), "checksum"),
        (lambda order: np.where(order == order[1], np.uint32(1000), order), "cannot be read back .*out of bounds"),
    ],
    ids=["too short", "a row twice", "no such row"],
)
def test_an_order_that_was_altered(
    cluster: Cluster, job: Job, tmp_path: Path, alter: Callable[[Any], Any], said: str
) -> None:
    """Rows that are missing, doubled or unknown are found before the commit."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        (part,) = publication.sorts[0].parts
        assert isinstance(part, SortedPart)
        alter(np.fromfile(part.order, np.uint32)).tofile(part.order)
        with pytest.raises(ContentError, match=said):
            publish_run(owner, publication)
    assert cluster.count(job) == 0


def test_record_keys_that_were_altered(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """The keys that outputs get are guarded as the records are, from the dump on."""
    job = job.model_copy(update={"output_key": "sort"})
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        path = publication.sorts[0].parts[0].files[0]
        table = pq.read_table(path)
        keys = table.column("o0").to_pylist()
        altered = pa.array([b"1" + keys[0], *keys[1:]], pa.binary())
        pq.write_table(table.set_column(table.column_names.index("o0"), "o0", altered), path)
        with pytest.raises(ContentError, match="checksum"):
            publish_run(owner, publication)
    assert cluster.count(job) == 0
