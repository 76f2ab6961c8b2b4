"""Chunks: a file counts only with a manifest that fits it."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.chunks import ChunkFolder, TableWriter, drop_divided
from tasks.manifests import Chunk, LostRange, OffsetRange, SortedPart, SortedRows

SCHEMA = pa.schema({"value": pa.binary()})
PART = OffsetRange(3, 10, 20)


def write(folder: ChunkFolder, **over: object) -> Chunk:
    path = folder.path(PART)
    with TableWriter(path, SCHEMA) as writer:
        writer.write(pa.table({"value": [b"a", b"b"]}, SCHEMA))
    assert writer.finish() == path
    chunk = replace(
        Chunk(path, PART, 2, 1, 77, lost=(LostRange(3, 10, 12),), times=(5, 6)),
        **over,  # type: ignore[arg-type]
    )
    folder.write_manifest(chunk)
    return chunk


def test_a_chunk_is_found_as_it_was_made(tmp_path: Path) -> None:
    """All of its facts come back, so that a retry does not read it again."""
    folder = ChunkFolder(tmp_path, 4, "topic")
    assert folder.find(PART) is None
    chunk = write(folder)
    assert folder.find(PART) == chunk


@pytest.mark.parametrize("damage", ["cut", "altered", "gone", "manifest cut", "manifest of another", "no manifest"])
def test_what_is_damaged_is_as_good_as_absent(damage: str, tmp_path: Path) -> None:
    """A file that is not as it was written is never published."""
    folder = ChunkFolder(tmp_path, 4, "topic")
    path = write(folder).path
    assert path is not None
    manifest = path.with_suffix(".json")
    data = path.read_bytes()
    damages: dict[str, Callable[[], object]] = {
        "cut": lambda: path.write_bytes(data[:-1]),
        "altered": lambda: path.write_bytes(data[:20] + b"!" + data[21:]),
        "gone": path.unlink,
        "manifest cut": lambda: manifest.write_text(manifest.read_text()[:-5]),
        "manifest of another": lambda: manifest.write_text(json.dumps({"chunk": {}})),
        "no manifest": manifest.unlink,
    }
    damages[damage]()
    assert folder.find(PART) is None


@pytest.mark.parametrize("folder", [ChunkFolder(Path(), 5, "topic"), ChunkFolder(Path(), 4, "recreated")])
def test_a_chunk_of_another_snapshot_does_not_count(folder: ChunkFolder, tmp_path: Path) -> None:
    """The other snapshot may be of another run, or of a topic that was recreated."""
    write(ChunkFolder(tmp_path, 4, "topic"))
    assert replace(folder, folder=tmp_path).find(PART) is None


def test_a_file_that_failed_leaves_nothing(tmp_path: Path) -> None:
    """If the disk is full, the next attempt needs the space."""
    writer = TableWriter(tmp_path / "chunk.parquet", SCHEMA)
    with contextlib.suppress(OSError), writer:
        writer.write(pa.table({"value": [b"a"]}, SCHEMA))
        assert len(list(tmp_path.iterdir())) == 1
        raise OSError("no space left on device")
    assert not list(tmp_path.iterdir())


def test_chunks_that_every_sort_has_in_parts_go(tmp_path: Path) -> None:
    """A chunk that a sort still needs stays."""
    chunks = [Chunk(tmp_path / f"{name}.parquet", OffsetRange(0, i, i + 1), 1, 1, 0) for i, name in enumerate("ab")]
    for chunk in chunks:
        assert chunk.path is not None
        chunk.path.touch()
    part = SortedPart((tmp_path / "a.parquet",), tmp_path / "order", 1)
    drop_divided(chunks, [SortedRows("s", 1, (part,), ("value",), 1)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
