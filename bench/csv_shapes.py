"""Shapes of CSV values that leave the fast path: µs·core a value to parse, by the sorter and by the verifier.

    python -m bench.csv_shapes [--values 100000] [--rounds 7]

The figure in brackets is relative to plain values. The best of the rounds counts, in CPU time.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from bench.timing import cpu_seconds, read_arguments
from tasks.formats.csv import CsvFormat
from tasks.settings.sorts import KeyColumn, parse_columns
from tasks.verification.formats.base import Values
from tasks.verification.keys import RecordKeys
from tasks.verification.reading import Block, paused_collection
from tasks.verification.terms import read_sort

COLUMNS = "id:int,name,address,continent"
SORTS = ("id", "name", "continent")
# The dump reads them in row groups, verification in blocks.
GROUP, BLOCK = 120_000, 5_000

Change = Callable[[bytes], bytes | None]


def _swap_field(value: bytes, index: int, item: bytes) -> bytes:
    fields = value.split(b",")
    fields[index] = item
    return b",".join(fields)


def _quote(value: bytes, index: int, middle: bytes = b"") -> bytes:
    item = value.split(b",")[index]
    return _swap_field(value, index, b'"' + item[:3] + middle + item[3:] + b'"')


# The change of a value, and the share of values that it changes: one of so many.
SHAPES: dict[str, tuple[Change, int]] = {
    "plain": (lambda v: v, 1),
    "CR": (lambda v: v + b"\r", 1),
    "CRLF": (lambda v: v + b"\r\n", 1),
    "LF": (lambda v: v + b"\n", 1),
    "CR, 1 of 100": (lambda v: v + b"\r", 100),
    "BOM": (lambda v: b"\xef\xbb\xbf" + v, 1),
    "BOM, 1 of 100": (lambda v: b"\xef\xbb\xbf" + v, 100),
    "a quoted field": (lambda v: _quote(v, 2), 1),
    "all fields quoted": (lambda v: b",".join(b'"%s"' % item for item in v.split(b",")), 1),
    "all fields quoted, CRLF": (lambda v: b",".join(b'"%s"' % item for item in v.split(b",")) + b"\r\n", 1),
    "a quoted field, 1 of 100": (lambda v: _quote(v, 2), 100),
    "doubled quotes": (lambda v: _quote(v, 2, b'""'), 1),
    "a line break in quotes": (lambda v: _quote(v, 2, b"\n"), 1),
    "a line break in quotes, 1 of 100": (lambda v: _quote(v, 2, b"\n"), 100),
    "a quote within a field": (lambda v: v.replace(b" street", b'"'), 1),
    "blanks around integers": (lambda v: b" " + v.replace(b",", b" ,", 1), 1),
    "hexadecimal": (lambda v: _swap_field(v, 0, hex(int(v.split(b",")[0])).encode()), 1),
    "no integer, 1 of the group": (lambda v: b"x" + v, GROUP),
    "no integer, 1 of 100": (lambda v: b"x" + v, 100),
    "no integer": (lambda v: b"x" + v, 1),
    "overflow, 1 of 100": (lambda v: b"9" * 19 + v, 100),
    "a field too many, 1 of the group": (lambda v: v + b",", GROUP),
    "a field too many, 1 of 100": (lambda v: v + b",", 100),
    "a field too many": (lambda v: v + b",", 1),
    "an open quote, 1 of the group": (lambda v: v + b',"', GROUP),
    "an open quote, 1 of 100": (lambda v: _swap_field(v, 2, b'"' + v.split(b",")[2]), 100),
    "text behind a quote, 1 of 100": (lambda v: _quote(v, 2) + b"x", 100),
    "an open quote": (lambda v: _swap_field(v, 2, b'"' + v.split(b",")[2]), 1),
    "two rows, 1 of 100": (lambda v: v + b"\n" + v, 100),
    "two rows": (lambda v: v + b"\n" + v, 1),
    "empty, 1 of 100": (lambda _: b"", 100),
    "empty": (lambda _: b"", 1),
    "null, 1 of 100": (lambda _: None, 100),
    "null": (lambda _: None, 1),
}


def make_values(count: int) -> list[bytes]:
    """Make plain rows of about 50 bytes."""
    chance = random.Random(1)
    number, pick = chance.randrange, chance.choice
    continents = (b"Asia", b"Europe", b"Africa")
    return [
        b"%d,name-%d,%d Long street,%s" % (number(1 << 31), number(10**6), number(10**4), pick(continents))
        for _ in range(count)
    ]


def apply_shape(values: list[bytes], change: Change, every: int) -> list[bytes | None]:
    """Change one of `every` values, but not the first or the last."""
    return [change(value) if i % every == every // 2 else value for i, value in enumerate(values)]


def time_sorter(values: Values) -> float:
    """Measure the CPU seconds to parse all of them, by row groups."""
    types = parse_columns(COLUMNS)
    fmt = CsvFormat(types, [KeyColumn(name, types[name]) for name in SORTS])
    groups = [pa.array(values[start : start + GROUP], pa.binary()) for start in range(0, len(values), GROUP)]
    return _measure(fmt.parse_values, groups)


def time_verifier(values: Values) -> float:
    """Measure the CPU seconds to parse all of them, by blocks."""
    facts = {"name": "csv", "columns": COLUMNS, "delimiter": ","}
    sorts = [read_sort(sort, facts) for sort in SORTS]
    blocks = [_make_block(values[start : start + BLOCK]) for start in range(0, len(values), BLOCK)]
    return _measure(RecordKeys(facts, sorts, sorts).encode, blocks)


def _make_block(values: Values) -> Block:
    nothing: list[None] = [None] * len(values)
    return Block(0, np.arange(len(values)), list(values), list(nothing), list(nothing), [])


def _measure(parse: Callable[[Any], object], blocks: list[Any]) -> float:
    # Both sides pause the collector while they work.
    with paused_collection():
        return sum(cpu_seconds(partial(parse, block)) for block in blocks)


def main() -> None:
    arguments = read_arguments(__doc__, GROUP, 7)
    plain = make_values(arguments.values)
    best: dict[tuple[str, str], float] = defaultdict(lambda: float("inf"))
    for _ in range(arguments.rounds):
        for shape, (change, every) in SHAPES.items():
            values = apply_shape(plain, change, every)
            for who, measure in (("sorter", time_sorter), ("verifier", time_verifier)):
                best[shape, who] = min(best[shape, who], measure(values) / len(values) * 1e6)
    print(f"{'µs a value':34}{'sorter':>16}{'verifier':>16}")
    for shape in SHAPES:
        cells = [f"{best[shape, w]:.2f} ({best[shape, w] / best['plain', w]:.1f})" for w in ("sorter", "verifier")]
        print(f"{shape:34}{cells[0]:>16}{cells[1]:>16}")


if __name__ == "__main__":
    main()
