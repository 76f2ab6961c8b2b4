"""A disk that is full, at every stage that writes: the run fails clean, and with space the next one does it."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tasks.errors import KafkaSortError, TerminalError, TransientError
from tasks.manifests import SortedPart
from tasks.settings.budget import MB, Budget
from tasks.sort import SortRequest, sort_chunks
from tests.cluster import Cluster, sample_values, wait_for
from tests.command import Command
from tests.faults.oracle import Follower, assert_exact
from tests.stages import make_job, owned, prepare

SIZE_MB = 160


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def command(cluster: Cluster, prefect_server: str, small_disk: Path) -> Command:
    """`kafka-sort` with its work folder on the small disk."""
    folder = small_disk / "work"
    folder.mkdir()
    return Command(cluster, folder)


def fill(ballast: Path, but: int = 0) -> None:
    """Fill a disk, except for so many bytes."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65_536)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - but))


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before-dump-chunk", "before-sort"])
def test_a_full_work_folder(cluster: Cluster, command: Command, small_disk: Path, point: str) -> None:
    """The disk fills up after the estimate said that it would do: one line, nothing published, no file left behind."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(20_000))
    job = command.job(source, retries=1, retry_delay=0.1)
    with Follower(cluster, job) as follower:
        running = command.start(job, failpoint=f"{point}=stop").wait_until_stopped()
        fill(small_disk / "ballast")
        outcome = running.finish_awake()
        assert outcome.status == 1, outcome.err
        assert "No space left" in outcome.err.splitlines()[-1]
        assert not list((command.workdir / job.name).iterdir())
        assert cluster.count(job, committed=False) == 0
        (small_disk / "ballast").unlink()
        again = command.run(job)
        assert again.status == 0, again.err
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_space_that_comes_back_during_the_retries(cluster: Cluster, command: Command, small_disk: Path) -> None:
    """A retry writes what the first attempt failed to write: a full disk may pass."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(20_000), 1)
    job = command.job(source)
    running = command.start(job, failpoint="before-dump-chunk=stop").wait_until_stopped()
    fill(small_disk / "ballast")
    running.send(signal.SIGCONT)
    wait_for(lambda: not running.is_stopped)
    # It is stopped again before its only chunk: the first attempt has failed.
    running.wait_until_stopped()
    (small_disk / "ballast").unlink()
    outcome = running.finish_awake()
    assert outcome.status == 0, outcome.err
    assert_exact(cluster, job)


@pytest.mark.slow
def test_a_spill_that_finds_no_space(
    cluster: Cluster, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB's spill fills the disk: an error that names the work folder; with space, the same chunks are sorted."""
    source = cluster.make_topic(1)
    rows = [b"%d,%s%d,address,Asia" % (i, b"x" * 400, i * 7919 % 100_003) for i in range(60_000)]
    cluster.produce(source, rows, 1)
    # DuckDB spills keys.
    job = make_job(source, tmp_path, sorts=[f"name={source}-names"])
    with owned(cluster, job) as owner:
        publication = prepare(owner, small_disk)
        # DuckDB reads and spills in the folder of the attempt, and nowhere else.
        folder = small_disk / publication.attempt
        for part in (part for done in publication.sorts for part in done.parts):
            assert isinstance(part, SortedPart)
            part.order.unlink()
        chunks = set(folder.iterdir())
        order = SortRequest(job, job.sort_list[0], publication.chunks, 4, folder)
        little = Budget(20 * MB, 16 * MB, 16 * MB, 8 * MB, 200 * MB)
        with monkeypatch.context() as patch:
            patch.setattr(Budget, "of", lambda *_: little)
            fill(small_disk / "ballast", but=2 * MB)
            with pytest.raises(KafkaSortError, match=f"sort {job.sort_list[0].topic}") as failed:
                sort_chunks(order)
            assert isinstance(failed.value.__cause__, duckdb.Error)
            assert isinstance(failed.value, TerminalError | TransientError)
            assert set(folder.iterdir()) == chunks
            (small_disk / "ballast").unlink()
        assert sort_chunks(order).rows == 60_000
