"""Protobuf: bare messages of one type, and messages in Confluent's wire format, by google.protobuf."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from tasks.errors import SettingsError
from tasks.formats.protobuf.schema import compile_once, require_compiler
from tasks.verification.content import Headers
from tasks.verification.formats.base import Columns, Request, Values, Wanted
from tasks.verification.formats.frames import find_header, split_message
from tasks.verification.formats.schemas import NoSchemaError, Registered, SchemaId
from tasks.verification.terms import Kind, Path
from tasks.verification.types.times import Instant

# From a message, or what is in one, to what is in that; None if there is nothing.
_Find = Callable[[Any], Any]
_Read = Callable[[bytes], list[Any]]
_TIMESTAMP = "google.protobuf.Timestamp"
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_SIGNED, _UNSIGNED = [(-(2**bits // 2), 2**bits // 2 - 1) for bits in (32, 64)], [(0, 2**bits - 1) for bits in (32, 64)]
# The least and the largest number of each type of integers.
_RANGES = {
    FieldDescriptor.TYPE_INT32: _SIGNED[0],
    FieldDescriptor.TYPE_SINT32: _SIGNED[0],
    FieldDescriptor.TYPE_SFIXED32: _SIGNED[0],
    FieldDescriptor.TYPE_UINT32: _UNSIGNED[0],
    FieldDescriptor.TYPE_FIXED32: _UNSIGNED[0],
    FieldDescriptor.TYPE_INT64: _SIGNED[1],
    FieldDescriptor.TYPE_SINT64: _SIGNED[1],
    FieldDescriptor.TYPE_SFIXED64: _SIGNED[1],
    FieldDescriptor.TYPE_UINT64: _UNSIGNED[1],
    FieldDescriptor.TYPE_FIXED64: _UNSIGNED[1],
}
# Those of 0001-01-01 and 9999-12-31, beyond which a Timestamp has no meaning.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


class NoFieldError(ValueError):
    """A message does not have a field of a path."""


class ProtobufReader:
    """Reads columns by their paths. ValueError if a schema cannot be had, or that of bare values lacks a path.

    A value whose schema is not in the ledger was read by none, so it is refused; so is one of another language's. Of
    the sorter's code it takes what compiles .proto texts into descriptors; messages are parsed by google.protobuf.
    """

    def __init__(self, request: Request) -> None:
        self._wanted, self._part = request.columns, request.part
        self._bare: _Read | None = None
        self._registered: dict[SchemaId, Registered] = {}
        # None for what cannot be read, as the values of one message are refused alike.
        self._readers: dict[tuple[SchemaId, tuple[int, ...]], _Read | None] = {}
        if request.is_bare:
            flags = "--format protobuf --protobuf-descriptor FILE --protobuf-message NAME"
            pool = _make_pool(_read_files(request.schemas.of_file(request.facts, flags)))
            self._bare = _make_reader(_find_message(pool, request.facts["message"]), self._wanted)
        else:
            self._registered = request.schemas.of_registry(request.facts, "PROTOBUF")
            _require_compiler()

    def read(self, values: Values, headers: Sequence[Headers]) -> Columns:
        """Return the columns of the block: numbers, texts as bytes, times."""
        rows, refused = [], set()
        for index, (value, header) in enumerate(zip(values, headers, strict=True)):
            try:
                rows.append(self._read_one(value, header))
            except (DecodeError, ValueError):
                refused.add(index)
        return Columns(list(zip(*rows, strict=True)) or [()] * len(self._wanted), refused)

    def _read_one(self, value: bytes | None, headers: Headers) -> list[Any]:
        if value is None:
            raise ValueError
        if self._bare is not None:
            return self._bare(value)
        name, indexes, start = split_message(value, find_header(headers, self._part))
        if (name, indexes) not in self._readers:
            self._readers[name, indexes] = self._make_registered(name, indexes)
        read = self._readers[name, indexes]
        if read is None:
            raise ValueError
        return read(value[start:])

    def _make_registered(self, name: SchemaId, indexes: tuple[int, ...]) -> _Read | None:
        """Make the reader of a message; None if the schema is none, lacks it, or has a column of another type."""
        schema = self._registered.get(name)
        if schema is None:
            return None
        try:
            return _make_reader(_find_registered(schema, indexes), self._wanted, is_lenient=True)
        except (SettingsError, ValueError, LookupError, TypeError):
            return None


def _require_compiler() -> None:
    try:
        require_compiler()
    except SettingsError as error:
        raise NoSchemaError(str(error)) from None


def _find_registered(schema: Registered, indexes: tuple[int, ...]) -> Any:
    """Return the descriptor of a message by its place in a registry's file. LookupError if there is none."""
    files = _read_files(compile_once(schema.text, schema.references))
    file = _make_pool(files).FindFileByName(files[-1].name)
    first, *inner = indexes
    message = list(file.message_types_by_name.values())[first]
    for index in inner:
        message = message.nested_types[index]
    return message


def _read_files(content: bytes) -> Sequence[Any]:
    return list(descriptor_pb2.FileDescriptorSet.FromString(content).file)


def _make_pool(files: Sequence[Any]) -> Any:
    """Return a pool of files, which may be in any order."""
    left = {file.name: file for file in files}
    pool = descriptor_pool.DescriptorPool()

    def add(file: Any) -> None:
        for imported in file.dependency:
            if imported in left:
                add(left.pop(imported))
        pool.AddSerializedFile(file.SerializeToString())

    while left:
        add(left.pop(next(iter(left))))
    return pool


def _find_message(pool: Any, name: str) -> Any:
    try:
        return pool.FindMessageTypeByName(name)
    except KeyError:
        raise ValueError(f"the schema has no message {name}") from None


def _make_reader(message: Any, columns: Sequence[Wanted], *, is_lenient: bool = False) -> _Read:
    """Return the function from bytes to the values of the columns; `is_lenient`: fields may be lacking, and are null.

    ValueError if a column has another type than it is wanted for.
    """
    parse = message_factory.GetMessageClass(message).FromString
    finders = [_make_finder(message, wanted, is_lenient=is_lenient) for wanted in columns]

    def read(value: bytes) -> list[Any]:
        found = parse(value)
        return [find(found) for find in finders]

    return read


def _make_finder(message: Any, wanted: Wanted, *, is_lenient: bool) -> _Find:
    try:
        return _find_column(message, wanted)
    except NoFieldError:
        if not is_lenient:
            raise
        return lambda _: None


def _find_column(message: Any, wanted: Wanted) -> _Find:
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
    if message is None or isinstance(name, int):
        raise ValueError(f"there are no fields, or no items, where {name} would be")
    field = message.fields_by_name.get(name)
    if field is None:
        raise NoFieldError(f"the schema has no field {name}")
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
        case kind:
            least, most = _RANGES[kind]
            if not least <= int(step) <= most:
                raise ValueError(f"{step} is no key of the map")
            return int(step)


def _find_member(field: Any) -> _Find:
    name = field.name
    if field.has_presence:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    return lambda message: getattr(message, name)


def _find_item(index: str | int) -> _Find:
    if isinstance(index, str):
        raise ValueError(f"{index} is no index")  # noqa: TRY004  # a path that does not fit is a ValueError
    return lambda items: items[index] if index < len(items) else None


def _find_entry(key: Any) -> _Find:
    return lambda entries: entries[key] if key in entries else None  # noqa: SIM401  # `get` of a map of messages adds


def _make_finish(field: Any, wanted: Wanted) -> _Find:
    """Return the function from what a field holds to what the column's type takes. ValueError if it takes none."""
    if field.message_type is not None and field.message_type.full_name in _WRAPPERS:
        (inner,) = field.message_type.fields
        member, finish = _find_member(inner), _make_finish(inner, wanted)
        return lambda wrapper: finish(member(wrapper))
    if not _takes(wanted.kind, field):
        raise ValueError(f"field {field.full_name} is not compared as {wanted.kind.name}")
    if field.enum_type is not None:
        names = {value.number: value.name.encode() for value in reversed(field.enum_type.values)}
        is_number = wanted.kind.name == "int"
        return lambda number: number if is_number else names.get(number) or b"%d" % number
    if field.message_type is not None:
        return _to_instant
    return lambda found: found.encode() if isinstance(found, str) else found


def _takes(kind: Kind, field: Any) -> bool:
    """Whether a column of the type takes what the field holds; texts, and bytes, may say anything."""
    if field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
        return True
    if field.message_type is not None:
        return field.message_type.full_name == _TIMESTAMP and kind == Kind("time")
    if field.enum_type is not None:
        return kind.name in {"int", "text"}
    if field.type in _RANGES:
        return kind.name in {"int", "decimal"} or (kind.name == "time" and kind.parameter != "")
    return kind.name == ("bool" if field.type == FieldDescriptor.TYPE_BOOL else "float")


def _to_instant(timestamp: Any) -> Instant:
    if not (0 <= timestamp.nanos < 10**9 and _FIRST_SECOND <= timestamp.seconds <= _LAST_SECOND):
        raise ValueError
    return Instant(timestamp.seconds * 10**9 + timestamp.nanos)
