"""Protobuf: one serialized message a value, by google.protobuf."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from tasks.verification.content import Headers
from tasks.verification.formats.base import Columns, Request, Values, Wanted
from tasks.verification.formats.schemas import NoSchemaError
from tasks.verification.terms import Path
from tasks.verification.types.times import Instant

# From a message, or what is in one, to what is in that; None if there is nothing.
_Find = Callable[[Any], Any]
_TIMESTAMP = "google.protobuf.Timestamp"
# Those of 0001-01-01 and 9999-12-31, beyond which a Timestamp has no meaning.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


class ProtobufReader:
    """Reads columns by their paths. ValueError if the schema cannot be had, or lacks a path."""

    def __init__(self, request: Request) -> None:
        if "message" not in request.facts:
            raise NoSchemaError("this version does not verify Protobuf of a schema registry")
        flags = "--format protobuf --protobuf-descriptor FILE --protobuf-message NAME"
        descriptor = _load_message(request.schemas.of_file(request.facts, flags), request.facts["message"])
        self._parse = message_factory.GetMessageClass(descriptor).FromString
        self._finders = [_make_finder(descriptor, wanted) for wanted in request.columns]

    def read(self, values: Values, _: Sequence[Headers] = ()) -> Columns:
        """Return the columns of the block: numbers, texts as bytes, times."""
        rows, refused = [], set()
        for index, value in enumerate(values):
            try:
                rows.append(self._read_one(value))
            except (DecodeError, ValueError):
                refused.add(index)
        return Columns(list(zip(*rows, strict=True)) or [()] * len(self._finders), refused)

    def _read_one(self, value: bytes | None) -> list[Any]:
        if value is None:
            raise ValueError
        message = self._parse(value)
        return [find(message) for find in self._finders]


def _load_message(content: bytes, name: str) -> Any:
    """Return the descriptor of a message; the files of the set may be in any order."""
    files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(content).file}
    pool = descriptor_pool.DescriptorPool()

    def add(file: Any) -> None:
        for imported in file.dependency:
            if imported in files:
                add(files.pop(imported))
        pool.AddSerializedFile(file.SerializeToString())

    while files:
        add(files.pop(next(iter(files))))
    try:
        return pool.FindMessageTypeByName(name)
    except KeyError:
        raise ValueError(f"the schema has no message {name}") from None


def _make_finder(message: Any, wanted: Wanted) -> _Find:
    """Return the function from a message to the value of a column."""
    finders, leaf = _follow(message, wanted.column.path)
    finish = _make_finish(leaf, wanted)

    def find(found: Any) -> Any:
        for step in finders:
            found = step(found)
            if found is None:
                return None
        return finish(found)

    return find


def _follow(message: Any, path: Path) -> tuple[list[_Find], Any]:
    """Return the steps of a path, and the field that it ends at. ValueError if the message does not have it."""
    finders: list[_Find] = []
    field, is_open = None, False
    for step in path:
        if is_open:
            entry = _entry_of(field)
            finders.append(_find_item(step) if entry is None else _find_entry(_read_key(entry, step)))
            field, is_open = field if entry is None else entry["value"], False
            continue
        field = _find_field(field.message_type if field is not None else message, step)
        finders.append(_find_member(field))
        is_open = field.is_repeated
    if field is None or is_open:
        raise ValueError(f"path {path} ends at no field")
    return finders, field


def _find_field(message: Any, name: str | int) -> Any:
    field = message.fields_by_name.get(name) if message is not None else None
    if field is None:
        raise ValueError(f"the schema has no field {name}")
    return field


def _entry_of(field: Any) -> Any:
    """Return the fields of a map's entry; None if the field is no map."""
    inner = field.message_type
    return inner.fields_by_name if inner is not None and inner.GetOptions().map_entry else None


def _read_key(entry: Any, step: str | int) -> Any:
    match entry["key"].type:
        case FieldDescriptor.TYPE_STRING:
            return str(step)
        case FieldDescriptor.TYPE_BOOL:
            return {"true": True, "false": False}[str(step)]
        case _:
            return int(step)


def _find_member(field: Any) -> _Find:
    name = field.name
    if field.has_presence:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    return lambda message: getattr(message, name)


def _find_item(index: str | int) -> _Find:
    at = int(index)
    return lambda items: items[at] if at < len(items) else None


def _find_entry(key: Any) -> _Find:
    return lambda entries: entries[key] if key in entries else None  # noqa: SIM401  # `get` of a map of messages adds


def _make_finish(field: Any, wanted: Wanted) -> _Find:
    """Return the function from what a field holds to what the column's type takes."""
    if field.enum_type is not None:
        names = {value.number: value.name.encode() for value in reversed(field.enum_type.values)}
        is_number = wanted.kind.name == "int"
        return lambda number: number if is_number else names.get(number) or b"%d" % number
    if field.message_type is None:
        return lambda found: found.encode() if isinstance(found, str) else found
    if field.message_type.full_name == _TIMESTAMP:
        return _to_instant
    (inner,) = field.message_type.fields
    member, finish = _find_member(inner), _make_finish(inner, wanted)
    return lambda wrapper: None if (found := member(wrapper)) is None else finish(found)


def _to_instant(timestamp: Any) -> Instant:
    if not (0 <= timestamp.nanos < 10**9 and _FIRST_SECOND <= timestamp.seconds <= _LAST_SECOND):
        raise ValueError
    return Instant(timestamp.seconds * 10**9 + timestamp.nanos)
