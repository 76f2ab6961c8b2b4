"""Protobuf values of about 160 bytes: µs of CPU a value to read three keys, and what a share of bad values costs.

    python -m bench.protobuf_shapes [--values 50000] [--rounds 5]

The best of the rounds counts, in CPU time. Beside it: google.protobuf, a message at a time.
"""

import random
from collections.abc import Callable

import pyarrow as pa
from google.protobuf import message_factory

from bench.timing import cpu_seconds, read_arguments
from tasks.formats.protobuf.format import ProtobufFormat
from tasks.formats.protobuf.messages import MessageReader
from tasks.formats.protobuf.paths import resolve
from tasks.formats.protobuf.schema import compile_proto, load_message
from tasks.settings.column_types import TEXT
from tasks.settings.paths import parse_path
from tasks.settings.sorts import KeyColumn

ORDER = """syntax = "proto3"; message Customer { int64 id = 1; string name = 2; string mail = 3; }
message Order { int64 order_id = 1; string sku = 2; Customer customer = 3; repeated string tags = 4; string price = 5;
bool paid = 6; string date = 7; int32 kind = 8; string note = 9; double weight = 10; map<string, int64> totals = 11;
oneof way { string ship = 12; int64 van = 13; } }
"""
KEYS = ("order_id", "sku", "customer.id")
# A group that the schema does not have.
GROUP = b"\xab\x06\xac\x06"


def make_values(make: Callable[..., object], count: int) -> list[bytes]:
    chance = random.Random(1)
    number = chance.randrange
    return [
        make(
            order_id=number(10**9), sku=f"SKU-{number(10**8):08}", tags=["red", "green", "blue"][: number(4)],
            customer={"id": number(10**6), "name": f"Name {number(1000)}", "mail": f"m{number(10**5)}@example.com"},
            price=f"{number(10**5) / 100}", paid=True, date="2026-01-01T00:00:00Z", kind=number(3), note="x" * 45,
            weight=chance.random(), van=number(100),
        ).SerializeToString()  # type: ignore[attr-defined]
        for _ in range(count)
    ]  # fmt: skip


def measure(work: Callable[[], object], values: int, rounds: int) -> float:
    return min(cpu_seconds(work) for _ in range(rounds)) / values * 1e6


def main() -> None:
    arguments = read_arguments(__doc__, 50_000, 5)
    schema = compile_proto(ORDER, {})
    message = load_message(schema, "Order", "the benchmark")
    make = message_factory.GetMessageClass(message)
    plain = make_values(make, arguments.values)
    print(f"{sum(map(len, plain)) / len(plain):.0f} bytes a value")

    def show(name: str, work: Callable[[], object]) -> None:
        print(f"{name:34} {measure(work, arguments.values, arguments.rounds):6.2f}")

    def read_keys() -> list[tuple[int, str, int]]:
        return [(m.order_id, m.sku, m.customer.id) for m in map(make.FromString, plain)]

    show("google.protobuf, a loop", read_keys)
    columns = [resolve(message, parse_path(key)) for key in KEYS]
    reader = MessageReader(message, [(column, column.default_type) for column in columns])
    array = pa.array(plain, pa.binary())
    show("checked alone", lambda: reader._checker.check(array))
    show("columns alone", lambda: reader._columnar and reader._columnar.read(array))
    shapes = {"plain": (KEYS, b"", 1), "a map's key": (("totals.a",), b"", 1), "a oneof": (("van",), b"", 1)}
    shapes |= {f"bad, 1 of {every}": (KEYS, b"\xff", every) for every in (1000, 100, 10, 1)}
    shapes |= {f"a group, 1 of {every}": (KEYS, GROUP, every) for every in (1000, 100, 1)}
    for name, (keys, end, every) in shapes.items():
        nulls = [KeyColumn(key, TEXT, nulls=True) for key in keys]
        fmt = ProtobufFormat(schema, "Order", nulls, {}, "")
        values = [value + end if i % every == every // 2 else value for i, value in enumerate(plain)]
        table = pa.table({"value": pa.array(values, pa.binary())})
        show(name, lambda fmt=fmt, table=table: fmt.parse(table))  # type: ignore[misc]


if __name__ == "__main__":
    main()
