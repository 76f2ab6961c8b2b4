"""The schema ids in the ledger: they add up over runs, and another text under a known id stops the run."""

from pathlib import Path

import pytest

from tasks.chunks import ChunkFolder
from tasks.formats.known_schemas import SchemaChangedError, describe_schemas, read_schemas
from tasks.manifests import Chunk, OffsetRange


def chunk(*schemas: tuple[str, str]) -> Chunk:
    return Chunk(None, OffsetRange(0, 0, 1), 1, 1, 1, schemas=schemas)


def test_schemas_add_up() -> None:
    """The fact has the ids of earlier runs and of all chunks; a job without a registry has none."""
    assert describe_schemas({"name": "csv"}, [chunk(), chunk()]) == {}
    first = describe_schemas({}, [chunk(("1", "aa")), chunk(("1", "aa"), ("7", "bb"))])
    assert read_schemas(first) == {"1": "aa", "7": "bb"}
    assert read_schemas(describe_schemas(first, [chunk(("3", "cc"))])) == {"1": "aa", "3": "cc", "7": "bb"}
    assert describe_schemas(first, []) == first


def test_another_text_under_a_known_id_stops() -> None:
    """An earlier run's text and another chunk's text are both compared."""
    by_chunks = [chunk(("7", "aa")), chunk(("7", "bb"))]
    for recorded, chunks in (({"schemas": "7=aa"}, by_chunks[1:]), ({}, by_chunks)):
        with pytest.raises(SchemaChangedError, match=r"schema id 7 has another text.* SHA-256 bb, and was aa"):
            describe_schemas(recorded, chunks)


def test_a_chunk_keeps_its_schemas(tmp_path: Path) -> None:
    """A chunk of a former attempt has its schemas by its manifest."""
    folder, made = ChunkFolder(tmp_path, 1, "id"), chunk(("7", "aa"))
    folder.write_manifest(made)
    found = folder.find(made.range)
    assert found is not None
    assert found.schemas == (("7", "aa"),)
