"""CSV values made to collide: built of fragments that parsers treat specially, some of one kind, some of all."""

from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis.strategies import SearchStrategy

from tasks.settings.sorts import KeyColumn, parse_columns

BOM = b"\xef\xbb\xbf"
DELIMITERS = [",", ";", "\t", " ", "|", "-", "1", "x", "'", "\\", "\x1f", "."]
NUMBERS = [
    b"1",
    b"-7",
    b"-0",
    b"00",
    b"007",
    b"+1",
    b"-",
    b"--1",
    b"1-2",
    b"1_0",
    b"1.0",
    b"1e3",
    b"0x",
    b"0x1f",
    b"0XfF",
    b"-0x1",
    b"0x" + b"F" * 16,
    b"0X8000000000000000",
    b"0x" + b"0" * 16 + b"1",
    b"\xd9\xa1",
    b"3\x0b",
    b"\xc2\xa03",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"99999999999999999999",
    b"0" * 30 + b"9223372036854775807",
    b"-" + b"0" * 30 + b"9223372036854775809",
    b"0" * 5000,
]
SPECIAL = [BOM, BOM[:1], BOM[:2], b'"', b'""', b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b"\xff", b"a", b"\x1a"]

# What stands in header lines, beside the columns `id` and `name`.
HEADER_NAMES = [b"id", b"name", b'"id"', b'"name"', b" id", b"x", b"", b'"a\nb"', b'a"b', b'"', b"ID"]
BREAKS = [b"\n", b"\r\n", b"\r"]

fragments = st.sampled_from(SPECIAL) | st.sampled_from(NUMBERS)
fields = st.one_of(
    st.sampled_from(NUMBERS),
    st.builds(
        lambda a, n, b: a + n + b, *(st.sampled_from([b"", b" ", b"\t"]), st.sampled_from(NUMBERS)), st.just(b" ")
    ),
    st.sampled_from([b"", b"a", b'"q"', b'"a""b"', b'"ab"c', b'a"b', b'"', b'"1"', b'" 2"', b'"a\nb"', b'"\r\n"']),
    st.lists(fragments, max_size=4).map(b"".join),
    st.binary(max_size=4),
)


def values(delimiter: str, width: int) -> SearchStrategy[bytes | None]:
    """Values that mostly have the right number of fields, some with a mark in front or a line break behind."""
    rows = (st.lists(fields, min_size=width, max_size=width) | st.lists(fields, max_size=width + 1)).map(
        delimiter.encode().join
    )
    before = st.sampled_from([b"", b"", b"", BOM, BOM + BOM, b"\n"])
    after = st.sampled_from([b"", b"", b"", b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r", b"\n\n", b"\r\n\r\n"])
    return st.one_of(st.builds(lambda *parts: b"".join(parts), before, rows, after), fields, st.none())


def tame_values(delimiter: str, width: int) -> SearchStrategy[bytes | None]:
    """Rows without quotes, some with a mark in front: a block of them is parsed as a whole."""
    row = st.lists(st.sampled_from([b"1", b"-7", b" 3", b"0x1f"]), min_size=width, max_size=width)
    return st.builds(
        lambda mark, fields: mark + delimiter.encode().join(fields), st.sampled_from([b"", BOM, BOM + BOM]), row
    )


def blocks(width: int) -> SearchStrategy[tuple[str, list[bytes | None]]]:
    """A delimiter, and values of one block, of which some are equal."""

    def of(delimiter: str) -> SearchStrategy[tuple[str, list[bytes | None]]]:
        kinds = values(delimiter, width), tame_values(delimiter, width)
        pool = st.sampled_from(kinds).flatmap(lambda kind: st.lists(kind, min_size=1, max_size=6))
        drawn = pool.flatmap(lambda some: st.lists(st.sampled_from(some), max_size=12))
        return st.tuples(st.just(delimiter), drawn)

    return st.sampled_from(DELIMITERS).flatmap(of)


def key_columns(columns: str, names: Sequence[str]) -> list[KeyColumn]:
    """The key columns of these names, in their order."""
    types = parse_columns(columns)
    return [KeyColumn(name, types[name]) for name in names]


def headed_values(delimiter: str) -> SearchStrategy[bytes | None]:
    """Values of a header line and a row that mostly fit, in few shapes, so that header lines are shared."""
    between = delimiter.encode()
    usual = st.sampled_from([[b"id", b"name"], [b"name", b"id"], [b"x", b"id", b"name"], [b'"id"', b"name"]])
    names = usual | usual | st.lists(st.sampled_from(HEADER_NAMES), max_size=4)
    rows = st.lists(st.sampled_from([b"1", b"-7", b"a"]) | fields, min_size=2, max_size=3)
    end = st.sampled_from([b"", b"", *BREAKS, b"\n\n"])
    mark = st.sampled_from([b"", b"", b"", BOM, BOM + BOM])
    joined = st.builds(
        lambda mark, names, br, row, end: mark + between.join(names) + br + between.join(row) + end,
        *(mark, names, st.sampled_from(BREAKS), rows, end),
    )
    return st.one_of(joined, joined, joined, fields, st.none())
