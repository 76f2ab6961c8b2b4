"""Paths into messages: from a column's path and a descriptor to the steps that lead to its value, and its type.

A path that the message does not have is a SettingsError, before any work.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from google.protobuf.descriptor import FieldDescriptor

from tasks.errors import SettingsError
from tasks.settings.column_types import INT, TEXT, ColumnType
from tasks.settings.load import nearest
from tasks.settings.paths import Path, format_path
from tasks.settings.sorts import label_column

DECIMAL: Final = ColumnType("decimal")
TIMESTAMP: Final = "google.protobuf.Timestamp"
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_SHOWN_NAMES = 12
# Type of a field → its name in .proto files, and the Arrow type of what is read: text is bytes, an enum its number.
_SCALARS: Final[dict[int, tuple[str, pa.DataType]]] = {
    FieldDescriptor.TYPE_DOUBLE: ("double", pa.float64()),
    FieldDescriptor.TYPE_FLOAT: ("float", pa.float32()),
    FieldDescriptor.TYPE_INT64: ("int64", pa.int64()),
    FieldDescriptor.TYPE_SINT64: ("sint64", pa.int64()),
    FieldDescriptor.TYPE_SFIXED64: ("sfixed64", pa.int64()),
    FieldDescriptor.TYPE_UINT64: ("uint64", pa.uint64()),
    FieldDescriptor.TYPE_FIXED64: ("fixed64", pa.uint64()),
    FieldDescriptor.TYPE_INT32: ("int32", pa.int32()),
    FieldDescriptor.TYPE_SINT32: ("sint32", pa.int32()),
    FieldDescriptor.TYPE_SFIXED32: ("sfixed32", pa.int32()),
    FieldDescriptor.TYPE_UINT32: ("uint32", pa.uint32()),
    FieldDescriptor.TYPE_FIXED32: ("fixed32", pa.uint32()),
    FieldDescriptor.TYPE_BOOL: ("bool", pa.bool_()),
    FieldDescriptor.TYPE_STRING: ("string", pa.binary()),
    FieldDescriptor.TYPE_BYTES: ("bytes", pa.binary()),
    FieldDescriptor.TYPE_ENUM: ("enum", pa.int32()),
}


class NoSuchFieldError(SettingsError):
    """A message of the schema does not have a field that a column names."""

    action = "Correct the path in `--sort`, as the line hints, or name another message or schema."


@dataclass(frozen=True)
class Member:
    """To a field of a message, by its FieldDescriptor."""

    field: Any


@dataclass(frozen=True)
class Item:
    """To an item of a repeated field."""

    index: int


@dataclass(frozen=True)
class Entry:
    """To the value of a map's key. `value`: the FieldDescriptor of the values."""

    key: str | int | bool
    value: Any


Step = Member | Item | Entry
Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Column:
    """A column's place in a message. `parts`: one place, or those of seconds and nanoseconds of a time."""

    name: str
    parts: tuple[Steps, ...]

    @property
    def label(self) -> str:
        """The column in the reason of a dead letter."""
        return label_column(self.name)

    @property
    def leaf(self) -> Any:
        """The FieldDescriptor of the value."""
        return leaf_of(self.parts[0])

    @property
    def is_time(self) -> bool:
        """Whether it is a google.protobuf.Timestamp."""
        return len(self.parts) > 1

    @property
    def kind(self) -> str:
        """The type of the field as .proto files name it."""
        return TIMESTAMP if self.is_time else _SCALARS[self.leaf.type][0]

    @property
    def default_type(self) -> ColumnType:
        """The type of the column if none is given, in which each value of the field has its place."""
        raw = raw_type(self.parts[0])
        if self.is_time:
            return ColumnType("time")
        if self.leaf.enum_type is not None or pa.types.is_binary(raw):
            return TEXT
        if pa.types.is_boolean(raw) or pa.types.is_floating(raw):
            return ColumnType("bool" if pa.types.is_boolean(raw) else "float")
        return DECIMAL if pa.types.is_uint64(raw) else INT


def leaf_of(steps: Steps) -> Any:
    """Return the FieldDescriptor of what the steps lead to."""
    last = next(step for step in reversed(steps) if not isinstance(step, Item))
    return last.field if isinstance(last, Member) else last.value


def raw_type(steps: Steps) -> pa.DataType:
    """Return the Arrow type of the values that the steps lead to."""
    return _SCALARS[leaf_of(steps).type][1]


def resolve(message: Any, path: Path) -> Column:
    """Find a path in a message (Descriptor). SettingsError says which part it does not have, and what there is."""
    name = format_path(path)
    steps = _Resolver(name, message).resolve(path)
    target = leaf_of(steps).message_type
    if target is None:
        return Column(name, (steps,))
    if target.full_name == TIMESTAMP:
        parts = tuple((*steps, Member(target.fields_by_name[part])) for part in ("seconds", "nanos"))
        return Column(name, parts)
    if target.full_name in _WRAPPERS:
        return Column(name, ((*steps, Member(target.fields_by_name["value"])),))
    first = target.fields[0].name if target.fields else None
    way = f": name a field of it, as {name}.{first}" if first else " without fields"
    raise SettingsError(f"column {name!r} is a message, {target.full_name}{way}")


def find_fields(message: Any, around: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the paths of a message (Descriptor) that may be keys, without those into repeated fields and maps."""
    inside = (*around, message.full_name)
    for field in message.fields:
        target = field.message_type
        if field.is_repeated or (target is not None and target.full_name in inside):
            continue
        if target is None or target.full_name == TIMESTAMP or target.full_name in _WRAPPERS:
            yield (field.name,)
        else:
            yield from ((field.name, *path) for path in find_fields(target, inside))


class _Resolver:
    """Walks a path, from a message to the field that it ends at."""

    def __init__(self, name: str, message: Any) -> None:
        self._name = name
        self._message = message
        # The field whose item or key is next; None if the next step is a field's name.
        self._open: Any = None
        # Where the walk is, for errors.
        self._here = ""

    def resolve(self, path: Path) -> Steps:
        steps = tuple(self._step(step) for step in path)
        if self._open is not None:
            example = f'{self._here}."key"' if _is_map(self._open) else f"{self._here}[0]"
            what = "a map" if _is_map(self._open) else "repeated"
            raise SettingsError(f"column {self._name!r}: {self._here} is {what}: write for example {example}")
        return steps

    def _step(self, step: str | int) -> Step:
        if self._open is not None:
            taken = self._entry(step) if _is_map(self._open) else self._item(step)
        else:
            taken = self._member(step)
        self._here = format_path((step,)) if not self._here else f"{self._here}{_written(step)}"
        return taken

    def _member(self, step: str | int) -> Step:
        if self._message is None:
            raise SettingsError(f"column {self._name!r}: {self._here} is no message, and has no fields or items")
        if isinstance(step, int):
            raise SettingsError(f"column {self._name!r}: {self._here or 'the message'} is not repeated")
        field = self._message.fields_by_name.get(step)
        if field is None:
            raise NoSuchFieldError(_no_such_field(self._name, self._message, step))
        self._open = field if field.is_repeated else None
        self._message = field.message_type
        return Member(field)

    def _item(self, step: str | int) -> Step:
        if not isinstance(step, int):
            raise SettingsError(f"column {self._name!r}: {self._here} is repeated: write for example {self._here}[0]")
        self._open = None
        return Item(step)

    def _entry(self, step: str | int) -> Step:
        entry = self._open.message_type.fields_by_name
        key = _read_key(entry["key"], step)
        if key is None:
            kind = _SCALARS[entry["key"].type][0]
            raise SettingsError(f"column {self._name!r}: {step!r} is no key of {self._here}, whose keys are {kind}")
        self._open = None
        self._message = entry["value"].message_type
        return Entry(key, entry["value"])


def _written(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{format_path((step,))}"


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _read_key(field: Any, step: str | int) -> str | int | bool | None:
    """Return a map's key by its type, None if `step` is none: `m.eu`, `m.7` or `m[7]`, `m.true`."""
    raw = _SCALARS[field.type][1]
    if pa.types.is_binary(raw):
        return str(step)
    if pa.types.is_boolean(raw):
        return {"true": True, "false": False}.get(str(step))
    try:
        return int(pa.scalar(int(step), raw).as_py())
    except (ValueError, OverflowError, pa.ArrowInvalid):
        return None


def _no_such_field(name: str, message: Any, step: str) -> str:
    known = [field.name for field in message.fields]
    shown = f"{', '.join(known[:_SHOWN_NAMES])}{', …' * (len(known) > _SHOWN_NAMES)}" or "none"
    return (
        f"column {name!r}: there is no such field, {step!r}: the fields of {message.full_name} are "
        f"{shown}{nearest(step, known)}"
    )


def fields_on(steps: Sequence[Step]) -> list[Any]:
    """Return the FieldDescriptors that the steps pass."""
    return [step.field if isinstance(step, Member) else step.value for step in steps if not isinstance(step, Item)]
