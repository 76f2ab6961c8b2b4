"""Avro values of about 150 bytes: µs·core a value to decode three keys, by the sorter and by fastavro.

    python -m bench.avro [--values 100000] [--rounds 7]

The best of the rounds counts, in CPU time.
"""

import io
import json
import random
from typing import Any

import fastavro
import pyarrow as pa

from bench.timing import cpu_seconds, read_arguments
from tasks.formats.avro.decoder import Decoder, Wanted
from tasks.formats.avro.schema import parse_schema

SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "order_id", "type": "long"},
        {"name": "sku", "type": "string"},
        {
            "name": "customer",
            "type": {
                "type": "record",
                "name": "Customer",
                "fields": [{"name": "id", "type": "int"}, {"name": "name", "type": "string"}],
            },
        },
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "paid", "type": "boolean"},
        {"name": "day", "type": "string"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "placed", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "weight", "type": "double"},
    ],
}
PATHS = [("order_id",), ("sku",), ("customer", "id")]


def make_values(count: int) -> list[bytes]:
    """Make orders; some have no note, and the number of tags differs."""
    chance = random.Random(1)
    parsed, values = fastavro.parse_schema(json.loads(json.dumps(SCHEMA))), []
    for _ in range(count):
        order = {
            "order_id": chance.randrange(1 << 31),
            "sku": f"SKU-{chance.randrange(10**6):06}",
            "customer": {
                "id": chance.randrange(10**6),
                "name": f"A customer of this shop by the number {chance.randrange(10**6)}",
            },
            "tags": [f"tag-{chance.randrange(100)}" for _ in range(chance.randrange(1, 4))],
            "price": chance.randrange(10**6).to_bytes(4, "big"),
            "paid": chance.random() < 0.5,
            "day": "2026-11-05",
            "note": chance.choice([None, "please ring the bell twice, and leave it at the door"]),
            "placed": 1_790_000_000_000 + chance.randrange(10**9),
            "weight": chance.random(),
        }
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, order)
        values.append(out.getvalue())
    return values


def time_sorter(values: list[bytes]) -> float:
    """Measure the CPU seconds to decode all of them."""
    column = pa.array(values, pa.binary())
    decoder = Decoder(parse_schema(json.dumps(SCHEMA)), [Wanted(path, lambda _: True) for path in PATHS])
    return cpu_seconds(lambda: decoder.decode(column))


def time_fastavro(values: list[bytes]) -> float:
    """Measure the CPU seconds of a loop over all of them."""
    parsed = fastavro.parse_schema(json.loads(json.dumps(SCHEMA)))

    def read() -> None:
        for value in values:
            file = io.BytesIO(value)
            order: Any = fastavro.schemaless_reader(file, parsed, None)
            _ = order["order_id"], order["sku"], order["customer"]["id"], file.tell() == len(value)

    return cpu_seconds(read)


def main() -> None:
    arguments = read_arguments(__doc__, 100_000, 7)
    values = make_values(arguments.values)
    print(f"{sum(map(len, values)) / len(values):.0f} bytes a value")
    bad = [value + b"\0" if i % 100 == 0 else value for i, value in enumerate(values)]
    for name, of, measure in (
        ("sorter", values, time_sorter),
        ("sorter, 1 of 100 malformed", bad, time_sorter),
        ("fastavro", values, time_fastavro),
    ):
        best = min(measure(of) for _ in range(arguments.rounds))
        print(f"{name:28}{best / len(values) * 1e6:8.2f} µs")


if __name__ == "__main__":
    main()
