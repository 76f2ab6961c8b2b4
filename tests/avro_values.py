"""Random schemas of Avro, values of them, and mutations; bytes are written here, and not by a library.

`read` is the independent expectation: fastavro's reader, and all bytes are used up.
"""

import io
import random
import struct
from collections.abc import Sequence
from typing import Any

import fastavro

Schema = Any
PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
NAMES = ["a", "b", "c"]
# Beside other random numbers, those at which something changes.
EDGES = [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, -(2**31), 2**48, 2**55, 2**56, 2**62, 2**63 - 1, -(2**63)]


class Schemas:
    """Makes random schemas, whose named types have names of their own."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.made = 0

    def make(self, depth: int = 3) -> Schema:
        shapes = [self.record, self.record, self.array, self.map, self.union, self.union, self.primitive]
        return self.chance.choice(shapes if depth else [self.primitive])(depth - 1)

    def name(self) -> str:
        self.made += 1
        return f"n{self.made}"

    def primitive(self, depth: int) -> Schema:
        kind = self.chance.choice([*PRIMITIVES, "enum", "fixed"])
        if kind == "enum":
            return {"type": "enum", "name": self.name(), "symbols": ["X", "Y", "Z"][: self.chance.randint(1, 3)]}
        return (
            {"type": "fixed", "name": self.name(), "size": self.chance.choice([1, 3, 16, 20])}
            if kind == "fixed"
            else kind
        )

    def record(self, depth: int) -> Schema:
        name = self.name()
        fields = [{"name": item, "type": self.make(depth)} for item in NAMES[: self.chance.randint(1, 3)]]
        if self.chance.random() < 0.3:
            again = self.chance.choice(
                [["null", name], {"type": "array", "items": name}, {"type": "map", "values": name}]
            )
            fields.insert(self.chance.randint(0, len(fields)), {"name": "again", "type": again})
        return {"type": "record", "name": name, "namespace": self.chance.choice(["", "space"]), "fields": fields}

    def array(self, depth: int) -> Schema:
        # An item without bytes makes arrays without end, on which fastavro would spend its life.
        items = self.make(depth)
        return {"type": "array", "items": "int" if is_empty(items) else items}

    def map(self, depth: int) -> Schema:
        return {"type": "map", "values": self.make(depth)}

    def union(self, depth: int) -> Schema:
        inner: dict[str, Schema] = {}
        for _ in range(self.chance.randint(1, 4)):
            branch = self.make(depth)
            if not isinstance(branch, list):
                kind = branch["type"] if isinstance(branch, dict) else branch
                inner.setdefault(branch["name"] if isinstance(branch, dict) and "name" in branch else kind, branch)
        return list(inner.values()) or ["null"]


def is_empty(kind: Schema) -> bool:
    """Whether values of the schema have no bytes."""
    if isinstance(kind, dict) and kind["type"] == "record":
        return all(is_empty(item["type"]) for item in kind["fields"])
    return bool(kind == "null")


class Writer:
    """Writes random values of a schema."""

    def __init__(self, chance: random.Random, schema: Schema) -> None:
        self.chance = chance
        self.schema = schema
        self.named: dict[str, Schema] = {}

    def value(self) -> bytes:
        return self.write(self.schema, 0)

    def write(self, kind: Schema, depth: int) -> bytes:
        if isinstance(kind, list):
            # A value ends somewhere: deep down the branch that ends is likely.
            branch = 0 if depth > 6 else self.chance.randrange(len(kind))
            return number(branch) + self.write(kind[branch], depth + 1)
        name = kind if isinstance(kind, str) else kind["type"]
        if name in self.named:
            return self.write(self.named[name], depth + 1)
        if isinstance(kind, dict) and "name" in kind:
            self.named[kind["name"]] = kind
        return bytes(getattr(self, f"_{name}")(kind, depth))

    def _null(self, kind: Schema, depth: int) -> bytes:
        return b""

    def _boolean(self, kind: Schema, depth: int) -> bytes:
        return self.chance.choice([b"\0", b"\1"])

    def _int(self, kind: Schema, depth: int) -> bytes:
        return number(self.chance.choice([n for n in EDGES if abs(n) <= 2**31 - 1]))

    def _long(self, kind: Schema, depth: int) -> bytes:
        return number(self.chance.choice([*EDGES, self.chance.randrange(-(2**63), 2**63)]))

    def _float(self, kind: Schema, depth: int) -> bytes:
        return struct.pack("<f", self.chance.choice([0.0, -0.0, 1.5, float("inf"), float("nan"), 1e-40]))

    def _double(self, kind: Schema, depth: int) -> bytes:
        return struct.pack("<d", self.chance.choice([0.0, -0.0, 1.5, float("-inf"), float("nan"), 5e-324, 0.1]))

    def _bytes(self, kind: Schema, depth: int) -> bytes:
        size = (
            self.chance.choice([0, 1, 2, 8, 63, 64, 200]) if self.chance.random() < 0.3 else self.chance.randint(0, 4)
        )
        return number(size) + self.chance.randbytes(size)

    def _string(self, kind: Schema, depth: int) -> bytes:
        text = self.chance.choice([b"", b"a", b"b", b"ab", b"\xff", "ä".encode(), b"x" * 100])
        return number(len(text)) + text

    def _enum(self, kind: Schema, depth: int) -> bytes:
        return number(self.chance.randrange(len(kind["symbols"])))

    def _fixed(self, kind: Schema, depth: int) -> bytes:
        return self.chance.randbytes(kind["size"])

    def _record(self, kind: Schema, depth: int) -> bytes:
        return b"".join(self.write(item["type"], depth + 1) for item in kind["fields"])

    def _array(self, kind: Schema, depth: int) -> bytes:
        return self._blocks(lambda: self.write(kind["items"], depth + 1), depth)

    def _map(self, kind: Schema, depth: int) -> bytes:
        return self._blocks(lambda: self._string("string", depth) + self.write(kind["values"], depth + 1), depth)

    def _blocks(self, item: Any, depth: int) -> bytes:
        written = b""
        for _ in range(0 if depth > 6 else self.chance.choice([0, 1, 1, 2])):
            items = [item() for _ in range(self.chance.randint(1, 3))]
            sized = self.chance.random() < 0.3
            count = number(-len(items)) + number(sum(map(len, items))) if sized else number(len(items))
            written += count + b"".join(items)
        return written + b"\0"


def number(value: int) -> bytes:
    """Write an integer as Avro does."""
    rest, out = ((value << 1) ^ (value >> 63)) & (2**64 - 1), bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def mutate(chance: random.Random, value: bytes) -> bytes:
    """Change a value: cut it, add to it, or alter some of its bytes."""
    changed, where = bytearray(value), chance.randrange(len(value) + 1)
    kind = chance.randrange(5)
    if kind == 0:
        return bytes(changed[:where])
    if kind == 1:
        return value + chance.choice([b"\0", b"\1", b"\xff", value])
    if kind == 2:
        return bytes(changed[:where]) + chance.choice([b"\0", b"\2", b"\x80", b"\xff"]) + bytes(changed[where:])
    for _ in range(chance.randint(1, 3) if changed else 0):
        changed[chance.randrange(len(changed))] = chance.choice([0, 1, 2, 3, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    return bytes(changed)


def paths(chance: random.Random, schema: Schema) -> list[tuple[str | int, ...]]:
    """Return some paths, of which most are in the schema."""
    return list(dict.fromkeys(path for _ in range(8) if (path := _path(chance, schema, {}))))[:4]


def _path(chance: random.Random, kind: Schema, named: dict[str, Schema]) -> tuple[str | int, ...]:
    if isinstance(kind, list):
        return _path(chance, chance.choice(kind), named)
    if isinstance(kind, str):
        return _path(chance, named[kind], named) if kind in named and chance.random() < 0.5 else ()
    if "name" in kind:
        named = {**named, kind["name"]: kind}
    if kind["type"] == "record":
        item = chance.choice([*kind["fields"], {"name": "absent", "type": "int"}])
        return (item["name"], *_path(chance, item["type"], named))
    if kind["type"] == "array":
        return (chance.randrange(4), *_path(chance, kind["items"], named))
    if kind["type"] == "map":
        return (chance.choice(["a", "ab", "", "ä"]), *_path(chance, kind["values"], named))
    return ()


def read(parsed: Any, value: bytes) -> tuple[bool, Any]:
    """Return whether fastavro accepts the value, and what it reads."""
    file = io.BytesIO(value)
    try:
        found = fastavro.schemaless_reader(file, parsed, None, handle_unicode_errors="surrogateescape")
    except (EOFError, ValueError, IndexError, KeyError, OverflowError, MemoryError):
        return False, None
    return file.tell() == len(value), found


def follow(found: Any, path: Sequence[Any]) -> tuple[bool, Any]:
    """Return whether a value has a path, and what is there."""
    for step in path:
        kind = dict if isinstance(step, str) else list
        if not isinstance(found, kind) or not (step in found if kind is dict else step < len(found)):
            return False, None
        found = found[step]
    return True, found
