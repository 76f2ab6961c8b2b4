"""Steps over a value of Avro. fastavro reads schemas only: of values it takes what the rules of a run refuse.

These are integers of more than 10 bytes, numbers of branches and symbols below zero, and bytes behind the end. Of data
that is nested deeply it overflows the stack, and a count of items without bytes may keep it busy for ever.
"""

import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from tasks.verification.formats.avro_schema import Schema, is_record, name_of
from tasks.verification.terms import Kind, Path
from tasks.verification.types.times import Instant

_MOST_BYTES, _MOST_LEVELS, _MOST_ITEMS = 10, 500, 2**63 - 1
_MOST_DIGITS = 38
_UNITS = {"millis": 10**6, "micros": 10**3, "nanos": 1}
_DAY = 86_400 * 10**9


class MalformedError(ValueError):
    """The value is none of its schema, or has a key of another type than its column."""


class Cursor:
    """A position in a value. `todo`: steps to come, the next one last; `found`: what stands at each wanted path.

    Steps that hold others leave them to `todo`, so that data does not nest calls. Beyond the end is an IndexError.
    """

    __slots__ = ("data", "depth", "found", "pos", "todo")

    def __init__(self, data: bytes, pos: int, width: int) -> None:
        self.data, self.pos, self.depth = data, pos, 0
        self.todo: list[Step] = []
        self.found: list[Any] = [None] * width

    def run(self, step: "Step") -> list[Any]:
        """Step over the whole value."""
        todo = self.todo
        todo.append(step)
        while todo:
            todo.pop()(self)
        if self.pos != len(self.data):
            raise MalformedError
        return self.found


Step = Callable[[Cursor], None]
# Reads a value.
_Read = Callable[[Cursor], Any]
# A path from here on, the place of what is found, and the type of its column.
Wants = Sequence[tuple[Path, int, Kind]]


def read_number(c: Cursor) -> int:
    """Read an integer of at most 10 bytes, and 64 bits."""
    data, pos = c.data, c.pos
    byte = data[pos]
    if byte <= 0x7F:
        c.pos = pos + 1
        return (byte >> 1) ^ -(byte & 1)
    number, shift = byte & 0x7F, 7
    while byte > 0x7F:
        if shift == 7 * _MOST_BYTES:
            raise MalformedError
        pos += 1
        byte = data[pos]
        number |= (byte & 0x7F) << shift
        shift += 7
    c.pos = pos + 1
    number &= 2**64 - 1
    return (number >> 1) ^ -(number & 1)


def _take(c: Cursor, size: int) -> bytes:
    start = c.pos
    c.pos = end = start + size
    if not start <= end <= len(c.data):
        raise MalformedError
    return c.data[start:end]


def _read_text(c: Cursor) -> bytes:
    return _take(c, read_number(c))


def _read_bool(c: Cursor) -> bool:
    c.pos += 1
    return c.data[c.pos - 1] != 0


def _read_packed(code: str, size: int) -> _Read:
    unpack = struct.Struct(code).unpack_from

    def read(c: Cursor) -> Any:
        c.pos += size
        return unpack(c.data, c.pos - size)[0]

    return read


def _read_index(count: int) -> Callable[[Cursor], int]:
    def read(c: Cursor) -> int:
        number = read_number(c)
        if not 0 <= number < count:
            raise MalformedError
        return number

    return read


_READERS: dict[str, _Read] = {
    "null": lambda _: None,
    "boolean": _read_bool,
    "int": read_number,
    "long": read_number,
    "float": _read_packed("<f", 4),
    "double": _read_packed("<d", 8),
    "bytes": _read_text,
    "string": _read_text,
}


def _make_read(kind: Any) -> _Read:
    """Return the function that reads a value without parts, as its type without the logical one has it."""
    if name_of(kind) == "enum":
        index, symbols = _read_index(len(kind["symbols"])), [symbol.encode() for symbol in kind["symbols"]]
        return lambda c: symbols[index(c)]
    if name_of(kind) == "fixed":
        size = kind["size"]
        return lambda c: _take(c, size)
    return _READERS[name_of(kind)]


def _convert(kind: Any) -> tuple[Callable[[Any], Any] | None, str]:
    """Return what makes the key's value of what was read, if anything does, and the name of the leaf for `_TAKEN`."""
    name, logical = name_of(kind), kind.get("logicalType", "") if isinstance(kind, dict) else ""
    if logical == "decimal" and name in {"bytes", "fixed"}:
        scale = kind.get("scale", 0)
        # Decimals of more digits behind the point have no type of Arrow, and so no place in a sort.
        return lambda data: _to_decimal(data, scale), "decimal" if scale <= _MOST_DIGITS else "none"
    if logical == "uuid" and name == "fixed" and kind["size"] == 16:
        return lambda data: UUID(bytes=data), "uuid"
    if logical == "date" and name == "int":
        return lambda days: Instant(days * _DAY), "time"
    if name == "long" and logical.removeprefix("local-").startswith("timestamp-"):
        size = _UNITS.get(logical.rpartition("-")[2], 0)
        return (lambda count: Instant(count * size), "time") if size else (None, name)
    return None, name


def _to_decimal(data: bytes, scale: int) -> Decimal:
    sign, digits, _ = Decimal(int.from_bytes(data, "big", signed=True)).as_tuple()
    return Decimal((sign, digits, -scale))


_NUMBERS = frozenset({"int", "decimal", "time()"})
# Leaf → the types of columns that take it; `time()` is a time with a unit.
_TAKEN: dict[str, frozenset[str]] = {
    "int": _NUMBERS,
    "long": _NUMBERS,
    "float": frozenset({"float"}),
    "double": frozenset({"float"}),
    "boolean": frozenset({"bool"}),
    "decimal": frozenset({"decimal"}),
    "time": frozenset({"time"}),
    "uuid": frozenset({"uuid"}),
    "string": frozenset({"text", "uuid", "time"}),
} | dict.fromkeys(("bytes", "fixed", "enum"), frozenset({"text"}))


def _takes(kind: Kind, leaf: str) -> bool:
    return ("time()" if kind.name == "time" and kind.parameter else kind.name) in _TAKEN.get(leaf, ())


class Planner:
    """Turns a schema and paths into steps. `wrong`: what is found where a value is none of its column's type."""

    def __init__(self, schema: Schema, wrong: object) -> None:
        self._schema, self._wrong = schema, wrong
        # Records that may hold themselves, where nothing in them is wanted.
        self._nested: dict[int, list[Step]] = {}

    def plan(self, wants: Wants) -> Step:
        """Return the step over a value."""
        return self._plan(self._schema.root, wants)

    def _plan(self, kind: Any, wants: Wants) -> Step:
        kind = self._schema.resolve(kind)
        if isinstance(kind, list):
            return _choose([self._plan(branch, wants) for branch in kind])
        here, deeper = [want for want in wants if not want[0]], [want for want in wants if want[0]]
        if not (is_record(kind) or name_of(kind) in {"array", "map"}):
            return self._leaf(kind, here)
        step = self._record(kind, deeper) if is_record(kind) else self._repeated(kind, deeper)
        return _note_wrong(step, [at for _, at, _ in here], self._wrong) if here else step

    def _leaf(self, kind: Any, here: Wants) -> Step:
        read = _make_read(kind)
        if not here:
            return read
        convert, leaf = _convert(kind)
        places = [(at, leaf == "null" or _takes(column, leaf)) for _, at, column in here]
        if convert is None and len(places) == 1 and places[0][1]:
            return _note(read, places[0][0])

        def note(c: Cursor) -> None:
            value = read(c)
            for at, is_taken in places:
                c.found[at] = (convert(value) if convert else value) if is_taken else self._wrong

        return note

    def _record(self, kind: Any, wants: Wants) -> Step:
        if not self._schema.is_recursive(kind):
            return _run_all(self._fields(kind, wants))
        if wants:
            return _nest(self._fields(kind, wants))
        if id(kind) not in self._nested:
            steps = self._nested[id(kind)] = []
            steps += self._fields(kind, wants)
        return _nest(self._nested[id(kind)])

    def _fields(self, kind: Any, wants: Wants) -> list[Step]:
        """Return the steps over the fields, the last one first."""
        return [self._plan(field["type"], _behind(wants, field["name"])) for field in reversed(kind["fields"])]

    def _repeated(self, kind: Any, wants: Wants) -> Step:
        (inner,) = self._schema.parts(kind)
        other = self._plan(inner, ())
        behind = {path[0]: _behind(wants, path[0]) for path, _, _ in wants}
        steps = {step: self._plan(inner, found) for step, found in behind.items()}
        if kind["type"] == "array":
            # Items without bytes hold nothing that could be wanted, and there may be any number of them.
            item = None if self._schema.is_empty(inner) else other
            return lambda c: c.todo.append(_Items(item, {i: s for i, s in steps.items() if isinstance(i, int)}))
        named = {
            name.encode(): (steps[name], [at for _, at, _ in found])
            for name, found in behind.items()
            if isinstance(name, str)
        }
        entry = _enter(other, named)
        return lambda c: c.todo.append(_Items(entry, {}))


def _behind(wants: Wants, step: str | int) -> Wants:
    return [(path[1:], at, kind) for path, at, kind in wants if path[0] == step and type(path[0]) is type(step)]


def _note(read: _Read, at: int) -> Step:
    def note(c: Cursor) -> None:
        c.found[at] = read(c)

    return note


def _run_all(steps: list[Step]) -> Step:
    return lambda c: c.todo.extend(steps)


def _choose(steps: list[Step]) -> Step:
    index = _read_index(len(steps))
    return lambda c: c.todo.append(steps[index(c)])


def _note_wrong(step: Step, places: list[int], wrong: object) -> Step:
    def note(c: Cursor) -> None:
        for at in places:
            c.found[at] = wrong
        c.todo.append(step)

    return note


def _nest(steps: list[Step]) -> Step:
    """Return the step over a record that may hold itself."""

    def enter(c: Cursor) -> None:
        c.depth += 1
        if c.depth > _MOST_LEVELS:
            raise MalformedError
        c.todo.append(_ascend)
        c.todo.extend(steps)

    return enter


def _ascend(c: Cursor) -> None:
    c.depth -= 1


def _enter(other: Step, wanted: dict[bytes, tuple[Step, list[int]]]) -> Step:
    """Return the step over an entry of a map. Of entries with one name the last one counts."""

    def enter(c: Cursor) -> None:
        step, places = wanted.get(_read_text(c), (other, ()))
        for at in places:
            c.found[at] = None
        c.todo.append(step)

    return enter


class _Items:
    """Steps over the items of one array, or the entries of a map: blocks of a count and items, until a count is 0."""

    __slots__ = ("index", "item", "left", "wanted")

    def __init__(self, item: Step | None, wanted: dict[int, Step]) -> None:
        self.item, self.wanted, self.left, self.index = item, wanted, 0, 0

    def __call__(self, c: Cursor) -> None:
        while not self.left:
            count = _read_count(c)
            if not count:
                return
            self.left = count if self.item else 0
        self.left -= 1
        c.todo.append(self)
        c.todo.append(self.wanted.get(self.index, self.item))  # type: ignore[arg-type]  # there are items left
        self.index += 1


def _read_count(c: Cursor) -> int:
    count = read_number(c)
    if count < 0:
        # The size of the block in bytes, which the items tell themselves.
        read_number(c)
    if abs(count) > _MOST_ITEMS:
        raise MalformedError
    return abs(count)
