"""The notation of a job: sizes, columns, sorts."""

import pytest
from hypothesis import given, strategies as st

from tasks.settings.column_types import INT, TEXT
from tasks.settings.sorts import (
    SortKey,
    find_collision,
    format_columns,
    parse_columns,
    parse_size,
    parse_sort,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("2GB", 2 * 10**9), ("1GiB", 2**30), ("1.5k", 1500), ("512 mb", 512 * 10**6), ("3TiB", 3 * 2**40)],
)
def test_sizes(text: str, size: int) -> None:
    """Units are decimal, or binary with an i; blanks and case do not count."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1XB", "1e3", "٣", "1" * 31, "1 2"])
def test_what_is_no_size(text: str) -> None:
    """The message shows how to write one."""
    with pytest.raises(ValueError, match="write for example 2GB"):
        parse_size(text)


NAMES = st.lists(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), min_size=1, max_size=5, unique=True)


@given(NAMES, st.data())
def test_columns_come_back(names: list[str], data: st.DataObject) -> None:
    """Columns that are written and read again are the same."""
    columns = {name: data.draw(st.sampled_from([INT, TEXT])) for name in names}
    assert parse_columns(format_columns(columns)) == columns
    assert parse_columns(" , ".join(f"{name}:{kind}" for name, kind in columns.items())) == columns


@given(NAMES, st.data())
def test_sorts_come_back(names: list[str], data: st.DataObject) -> None:
    """Each term that is shown and read again is the same."""
    keys = tuple(
        SortKey(name, data.draw(st.booleans()), data.draw(st.sampled_from(["", "first", "last"]))) for name in names
    )
    assert parse_sort(",".join(map(str, keys))) == (keys, "")
    assert parse_sort(f"{','.join(map(str, keys))} = out") == (keys, "out")


def test_collisions() -> None:
    """Kafka's metrics cannot tell a dot from an underscore; a topic does not collide with itself."""
    assert find_collision("a.b", ["c", "a_b"]) == "a_b"
    assert find_collision("a.b", ["a.b", "a-b"]) is None
