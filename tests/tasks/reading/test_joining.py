"""The merge join, beside a join by loops."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from tasks.errors import SettingsError
from tasks.reading.joining import merge_join
from tasks.reading.merging import KEY
from tasks.reading.sorted_topic import SCHEMA

Keys = list[bytes]


@dataclass
class Side:
    """One side: its keys, cut into blocks; the offset of a record is its place."""

    stored: Keys
    cuts: list[int]
    terms: str = "int"

    @property
    def keys(self) -> Any:
        return SimpleNamespace(terms=self.terms)

    def keyed_blocks(self) -> Iterator[pa.Table]:
        edges = sorted({0, len(self.stored), *(cut for cut in self.cuts if cut < len(self.stored))})
        for start, end in pairwise(edges):
            part = self.stored[start:end]
            columns: dict[str, Any] = {name: pa.nulls(len(part), SCHEMA.field(name).type) for name in SCHEMA.names}
            columns |= {"value": pa.array(part, pa.binary()), "offset": pa.array(range(start, end), pa.int64())}
            yield pa.table({**columns, KEY: pa.array(part, pa.binary())})


SIDES = st.builds(
    lambda keys, cuts: Side(sorted(keys), cuts),
    st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=12),
    st.lists(st.integers(0, 12), max_size=6),
)


def loops(left: Keys, right: Keys, how: str) -> list[tuple[int, int | None]]:
    pairs: list[tuple[int, int | None]] = []
    for i, key in enumerate(left):
        partners = [j for j, other in enumerate(right) if other == key]
        pairs += [(i, j) for j in partners] or ([(i, None)] if how == "left" else [])
    return pairs


@given(SIDES, SIDES, st.sampled_from(["inner", "left"]))
def test_pairs_are_those_of_loops(left: Side, right: Side, how: Literal["inner", "left"]) -> None:
    """Whatever the keys and blocks are, each pair comes once, in the order of the left side and then of the right."""
    joined = merge_join(left, right, how).read_all().to_pylist()  # type: ignore[arg-type]
    assert [(row["left_offset"], row["right_offset"]) for row in joined] == loops(left.stored, right.stored, how)
    assert all(row["left_value"] == row["right_value"] for row in joined if row["right_offset"] is not None)


def test_other_types_of_keys() -> None:
    """Keys that do not compare alike are refused before anything is read."""
    with pytest.raises(SettingsError, match="keys differ: int and text"):
        merge_join(Side([], []), Side([], [], "text"))  # type: ignore[arg-type]
