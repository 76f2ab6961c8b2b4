"""Sorted files: outputs are exact, whatever the source is like, and whatever the sample has missed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from tasks.manifests import SortedFile
from tasks.settings.budget import Budget
from tasks.settings.job import Job
from tasks.verify import verify_job
from tests.cluster import Cluster, assert_sorted, sample_values
from tests.stages import make_job, owned, prepare, run_settled

COUNT = 600


@contextmanager
def small_parts(most_bytes: int = 8000, **over: int) -> Iterator[None]:
    """Make the layout that of sorted files, with parts of so many bytes, and little that a task holds."""
    whole = Budget.of

    def of(job: Job) -> Budget:
        return Budget(**{**vars(whole(job)), "fetched_bytes": most_bytes, "divided_bytes": 20_000, **over})

    with patch("tasks.layouts.registry.keeps_sorted_files", lambda *_: True), patch.object(Budget, "of", of):
        yield


def rows_of(ids: Callable[[int], int], count: int = COUNT) -> list[bytes]:
    return [b"%d,name-%d,address,%s" % (ids(i), ids(i) % 97, b"Asia" if i % 3 else b"Europe") for i in range(count)]


SHAPES: dict[str, list[bytes | None]] = {
    "random": [*sample_values(COUNT)],
    "presorted": [*rows_of(lambda i: i)],
    "backwards": [*rows_of(lambda i: COUNT - i)],
    "one heavy key": [*rows_of(lambda i: 7 if i % 5 < 3 else i * 7919 % 1000)],
    "one key": [*rows_of(lambda _: 7)],
    "dead letters": [*sample_values(COUNT), b"no row", None, b"x,y"],
}
SORTS = ["id", "name:desc,id", "continent"]


@pytest.mark.parametrize(
    "shape", [name if name == "one heavy key" else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES]
)
def test_shapes(cluster: Cluster, tmp_path: Path, shape: str) -> None:
    """Several sorts at once are exact, with several parts each, for sources of every shape."""
    source = cluster.make_topic()
    cluster.produce(source, SHAPES[shape])
    job = make_job(source, tmp_path, sorts=[f"{by}=o-{source}-{i}" for i, by in enumerate(SORTS)])
    with small_parts():
        run_settled(cluster, job, tmp_path)
    assert_sorted(cluster, job)
    assert verify_job(job, cluster.connection).lines() == []


def test_parts_are_sorted_files(cluster: Cluster, tmp_path: Path) -> None:
    """Each sort has several parts, none of a source's order; what only sorts need is gone before the publish."""
    source = cluster.make_topic()
    cluster.produce(source, SHAPES["random"])
    job = make_job(source, tmp_path)
    with small_parts(), owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        parts = publication.sorts[0].parts
    assert len(parts) > 3
    assert all(isinstance(part, SortedFile) for part in parts)
    assert sum(part.rows for part in parts) == COUNT
    folder = tmp_path / publication.attempt
    assert {path.name for path in folder.iterdir()} == {"sorted"}
    assert publication.disk_bytes == publication.sorts[0].file_bytes + sum(c.file_bytes for c in publication.chunks)
