"""Key types: µs·core a value to encode a column, beside `int`.

    python -m bench.types [--values 122880] [--rounds 15]

The figure in brackets is the difference to `int`. The best of the rounds counts, in CPU time.
"""

import random
import uuid
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from bench.timing import cpu_seconds, read_arguments
from tasks.settings.column_types import parse_type
from tasks.types.registry import key_type

Maker = Callable[[random.Random], str]


def _decimal(chance: random.Random, whole: int, part: int) -> str:
    return f"{chance.randrange(-(10**whole), 10**whole)}.{chance.randrange(10**part):0{part}}"


def _time(chance: random.Random, unit: str) -> str:
    milliseconds = np.datetime64(chance.randrange(10**12, 2 * 10**12), "ms")
    return str(milliseconds.astype(f"datetime64[{unit}]"))


def _name(chance: random.Random) -> str:
    return f"{chance.choice(['Müller', 'Ärger', 'Anna', 'Otto', 'zebra'])}{chance.randrange(10**6)}"


def _rarely(usual: Maker, other: str) -> Maker:
    return lambda chance: other if chance.randrange(100) == 0 else usual(chance)


def _price(chance: random.Random) -> str:
    return _decimal(chance, 7, 2)


def _instant(chance: random.Random) -> str:
    return _time(chance, "ms") + "Z"


# What is measured: the type, and what makes a value.
COLUMNS: dict[str, tuple[str, Maker]] = {
    "int": ("int", lambda c: str(c.randrange(1 << 31))),
    "text": ("text", _name),
    "decimal, 9 digits": ("decimal", _price),
    "decimal, 15 digits": ("decimal", lambda c: _decimal(c, 11, 4)),
    "decimal, 30 digits": ("decimal", lambda c: _decimal(c, 20, 10)),
    "decimal, 1 of 100 with an exponent": ("decimal", _rarely(_price, "1.5e7")),
    "decimal, 1 of 100 refused": ("decimal", _rarely(_price, "none")),
    "float": ("float", lambda c: repr(c.uniform(-1e6, 1e6))),
    "float, 1 of 100 NaN": ("float", _rarely(lambda c: repr(c.uniform(-1e6, 1e6)), "nan")),
    "float, 1 of 100 refused": ("float", _rarely(lambda c: repr(c.uniform(-1e6, 1e6)), "none")),
    "bool": ("bool", lambda c: c.choice(["true", "false"])),
    "time": ("time", _instant),
    "time, offset, no fraction": ("time", lambda c: _time(c, "s") + "+0200"),
    "time, 1 of 100 refused": ("time", _rarely(_instant, "none")),
    "time(ms)": ("time(ms)", lambda c: str(c.randrange(10**12, 2 * 10**12))),
    "uuid": ("uuid", lambda c: str(uuid.UUID(int=c.getrandbits(128)))),
    "uuid, no dashes": ("uuid", lambda c: f"{c.getrandbits(128):032x}"),
    "text(nocase)": ("text(nocase)", _name),
    "text(de)": ("text(de)", _name),
}


def measure(kind: str, values: pa.Array) -> float:
    """Measure the CPU seconds to encode the values."""
    encoder = key_type(parse_type(kind))
    return cpu_seconds(lambda: encoder.encode(values))


def main() -> None:
    arguments = read_arguments(__doc__, 122_880, 15)
    chance = random.Random(1)
    columns = {
        name: (kind, pa.array([make(chance).encode() for _ in range(arguments.values)], pa.binary()))
        for name, (kind, make) in COLUMNS.items()
    }
    best = dict.fromkeys(columns, float("inf"))
    for _ in range(arguments.rounds):
        for name, (kind, values) in columns.items():
            best[name] = min(best[name], measure(kind, values) / len(values) * 1e6)
    print(f"{'µs a value':38}{'':>8}")
    for name, figure in best.items():
        print(f"{name:38}{figure:8.3f} ({figure - best['int']:+.3f})")


if __name__ == "__main__":
    main()
