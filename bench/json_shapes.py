"""Shapes of JSON values that leave the fast path: µs·core a value to parse, by the sorter.

    python -m bench.json_shapes [--values 50000] [--rounds 7]

The figure in brackets is relative to plain values. The best of the rounds counts, in CPU time.
"""

import json
import random
from collections import defaultdict

import pyarrow as pa

from bench.csv_shapes import Change, apply_shape
from bench.timing import cpu_seconds, read_arguments
from tasks.formats.json import JsonFormat
from tasks.settings.column_types import INT, TEXT
from tasks.settings.sorts import KeyColumn
from tasks.verification.reading import paused_collection

KEYS = (KeyColumn("order_id", INT), KeyColumn("sku", TEXT), KeyColumn("customer.id", INT))


def _end(value: bytes, more: bytes) -> bytes:
    return value[:-1] + more


# The change of a value, and the share of values that it changes: one of so many.
SHAPES: dict[str, tuple[Change, int]] = {
    "plain": (lambda v: v, 1),
    "BOM": (lambda v: b"\xef\xbb\xbf" + v, 1),
    "pretty-printed": (lambda v: json.dumps(json.loads(v), indent=2).encode(), 1),
    "an escape in a key": (lambda v: v.replace(b"SKU-", b'SKU\\"'), 1),
    "a word like NaN, and commas": (lambda v: v.replace(b"web shop", b"finance, info ,]"), 1),
    "another member of 19 digits": (lambda v: _end(v, b',"f":0.1234567890123456789}'), 1),
    "truncated, 1 of 100": (lambda v: v[:-1], 100),
    "CSV, 1 of 100": (lambda _: b"1,SKU-1,7", 100),
    "null, 1 of 100": (lambda _: None, 100),
    "a key is missing, 1 of 100": (lambda v: v.replace(b"sku", b"ska"), 100),
    "a key of another kind, 1 of 100": (lambda v: v.replace(b'"sku": "', b'"sku": 1, "x": "'), 100),
    "NaN, 1 of 100": (lambda v: _end(v, b', "x": NaN}'), 100),
    "trailing comma, 1 of 100": (lambda v: _end(v, b",}"), 100),
    "not UTF-8, 1 of 100": (lambda v: v.replace(b"Berlin", b"\xff"), 100),
    "broken within, 1 of 100": (lambda v: v.replace(b'"qty": ', b'"qty": 0'), 100),
    "broken within, 1 of all": (lambda v: v.replace(b'"qty": ', b'"qty": 0'), 50_000),
    "broken within": (lambda v: v.replace(b'"qty": ', b'"qty": 0'), 1),
}


def make_values(count: int) -> list[bytes]:
    """Make orders of ten members and about 289 bytes."""
    chance = random.Random(1)
    number, pick = chance.randrange, chance.choice
    return [
        json.dumps(
            {
                "order_id": number(1 << 40),
                "sku": f"SKU-{number(10**6):06}",
                "customer": {
                    "id": number(10**7),
                    "name": f"name {number(10**5)}",
                    "address": {"city": "Berlin", "zip": f"{number(10**5):05}"},
                },
                "tags": ["a", pick(["b", "long tag"]), "c"],
                "price": number(10**5) / 100,
                "paid": pick([True, False]),
                "created": f"2026-01-{number(1, 29):02}T12:00:00Z",
                "note": None,
                "qty": number(1, 10),
                "channel": "web shop",
            }
        ).encode()
        for _ in range(count)
    ]


def time_parse(values: list[bytes | None]) -> float:
    """Measure the CPU seconds of this thread to parse all of them in one block."""
    fmt, block = JsonFormat({}, KEYS), pa.array(values, pa.binary())
    fmt.parse_values(block.slice(0, 1))
    with paused_collection():
        return cpu_seconds(lambda: fmt.parse_values(block))


def main() -> None:
    arguments = read_arguments(__doc__, 50_000, 7)
    plain = make_values(arguments.values)
    best: dict[str, float] = defaultdict(lambda: float("inf"))
    for _ in range(arguments.rounds):
        for shape, (change, every) in SHAPES.items():
            seconds = time_parse(apply_shape(plain, change, every))
            best[shape] = min(best[shape], seconds / len(plain) * 1e6)
    print(f"{sum(map(len, plain)) / len(plain):.0f} bytes a value, {len(KEYS)} keys")
    for shape, cost in best.items():
        print(f"{shape:34}{cost:10.2f} ({cost / best['plain']:.1f})")


if __name__ == "__main__":
    main()
