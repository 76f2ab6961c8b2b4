"""Random schemas of Protobuf, their messages, paths into them, and changes of their bytes."""

import random
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory, timestamp_pb2, wrappers_pb2

F = descriptor_pb2.FieldDescriptorProto
SCALARS = [
    F.TYPE_DOUBLE, F.TYPE_FLOAT, F.TYPE_INT64, F.TYPE_UINT64, F.TYPE_INT32, F.TYPE_FIXED64, F.TYPE_FIXED32, F.TYPE_BOOL,
    F.TYPE_STRING, F.TYPE_BYTES, F.TYPE_UINT32, F.TYPE_SFIXED32, F.TYPE_SFIXED64, F.TYPE_SINT32, F.TYPE_SINT64,
]  # fmt: skip
MAP_KEYS = [F.TYPE_STRING, F.TYPE_INT32, F.TYPE_UINT64, F.TYPE_BOOL, F.TYPE_SINT64, F.TYPE_FIXED32]
NUMBERS = [*range(1, 14), 15, 16, 200, 3000, 65_536, 65_537, 2**29 - 1]
WELL_KNOWN = ["Timestamp", "Duration", "Int64Value", "UInt64Value", "StringValue", "DoubleValue", "BoolValue"]
Path = tuple[str | int, ...]


class RandomSchema:
    """Two messages that hold each other, an enum, maps, oneofs, groups and well-known types, in proto2 or proto3."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.proto3 = chance.random() < 0.6
        syntax = "proto3" if self.proto3 else "proto2"
        file = descriptor_pb2.FileDescriptorProto(name="s.proto", package="s", syntax=syntax)
        known = [module.DESCRIPTOR for module in (timestamp_pb2, duration_pb2, wrappers_pb2)]
        file.dependency.extend([item.name for item in known])
        enum = file.enum_type.add(name="E")
        for number, name in ((0, "ZERO"), (1, "ONE"), (7, "SEVEN"), (-3, "LESS")):
            enum.value.add(name=name, number=number)
        for name in ("Root", "Other"):
            self._fill(file, file.message_type.add(name=name))
        files = descriptor_pb2.FileDescriptorSet()
        for item in known:
            files.file.add().MergeFromString(item.serialized_pb)
        files.file.append(file)
        self.content = files.SerializeToString()
        pool = descriptor_pool.DescriptorPool()
        for item in files.file:
            pool.AddSerializedFile(item.SerializeToString())
        self.root = pool.FindMessageTypeByName("s.Root")
        self.make = message_factory.GetMessageClass(self.root)

    def _fill(self, file: Any, message: Any) -> None:
        numbers = self.chance.sample(NUMBERS if self.chance.random() < 0.3 else NUMBERS[:-2], self.chance.randint(2, 9))
        union = self.chance.random() < 0.5
        if union:
            message.oneof_decl.add(name="u")
        for position, number in enumerate(numbers):
            field = message.field.add(name=f"f{number}", number=number, label=F.LABEL_OPTIONAL)
            self._choose(file, message, field)
            if union and position < 3 and field.label != F.LABEL_REPEATED:
                field.oneof_index = 0
        if union and not any(field.HasField("oneof_index") for field in message.field):
            del message.oneof_decl[:]
        for field in message.field:
            plain = not field.HasField("oneof_index") and field.label == F.LABEL_OPTIONAL
            if self.proto3 and plain and field.type != F.TYPE_MESSAGE and self.chance.random() < 0.4:
                field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field.name}")

    def _choose(self, file: Any, message: Any, field: Any) -> None:
        kind = self.chance.randrange(11)
        if kind < 2:
            field.type, field.type_name = F.TYPE_MESSAGE, self.chance.choice([".s.Root", ".s.Other"])
        elif kind == 2:
            field.type, field.type_name = F.TYPE_MESSAGE, f".google.protobuf.{self.chance.choice(WELL_KNOWN)}"
        elif kind == 3:
            field.type, field.type_name = F.TYPE_ENUM, ".s.E"
        elif kind == 4:
            self._make_map(message, field)
            return
        elif kind == 5 and not self.proto3 and self.chance.random() < 0.5:
            group = message.nested_type.add(name=f"G{field.number}")
            self._scalar(group.field.add(name="a", number=1, label=F.LABEL_OPTIONAL))
            field.name = group.name.lower()
            field.type, field.type_name = F.TYPE_GROUP, f".{file.package}.{message.name}.{group.name}"
        else:
            self._scalar(field)
        if self.chance.random() < 0.3:
            field.label = F.LABEL_REPEATED

    def _scalar(self, field: Any) -> None:
        field.type = self.chance.choice(SCALARS)

    def _make_map(self, message: Any, field: Any) -> None:
        entry = message.nested_type.add(name=f"F{field.number}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=F.LABEL_OPTIONAL, type=self.chance.choice(MAP_KEYS))
        value = entry.field.add(name="value", number=2, label=F.LABEL_OPTIONAL)
        kind = self.chance.randrange(3)
        if kind == 0:
            value.type, value.type_name = F.TYPE_MESSAGE, self.chance.choice([".s.Root", ".s.Other"])
        elif kind == 1:
            value.type, value.type_name = F.TYPE_ENUM, ".s.E"
        else:
            self._scalar(value)
        field.label, field.type, field.type_name = F.LABEL_REPEATED, F.TYPE_MESSAGE, f".s.{message.name}.{entry.name}"

    def fill(self, message: Any, depth: int = 0) -> Any:
        """Set about half of the fields."""
        for field in message.DESCRIPTOR.fields:
            if self.chance.random() < 0.6 and (field.message_type is None or depth < 3):
                self._set(message, field, depth)
        return message

    def _set(self, message: Any, field: Any, depth: int) -> None:
        target = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            for _ in range(self.chance.randrange(4)):
                if value.message_type is not None:
                    self.fill(target[self._key(key)], depth + 1)
                else:
                    target[self._key(key)] = self._value(value)
        elif field.is_repeated:
            for _ in range(self.chance.randrange(4)):
                if field.message_type is not None:
                    self.fill(target.add(), depth + 1)
                else:
                    target.append(self._value(field))
        elif field.message_type is not None:
            target.SetInParent()
            self.fill(target, depth + 1)
        else:
            setattr(message, field.name, self._value(field))

    def _key(self, field: Any) -> Any:
        if field.type == F.TYPE_STRING:
            return self.chance.choice(["", "a", "é"])
        return self.chance.choice([True, False]) if field.type == F.TYPE_BOOL else self.chance.randrange(3)

    def _value(self, field: Any) -> Any:
        chance = self.chance
        if field.enum_type is not None:
            return chance.choice([0, 1, 7, -3] if field.enum_type.is_closed else [0, 1, 7, -3, 5, -(2**31)])
        if field.type in {F.TYPE_DOUBLE, F.TYPE_FLOAT}:
            return chance.choice([0.0, -0.0, 1.5, float("inf"), float("nan"), -2.25])
        if field.type == F.TYPE_BOOL:
            return chance.random() < 0.5
        if field.type == F.TYPE_STRING:
            return chance.choice(["", "x", "sku-1", "日本", "a" * 50])
        if field.type == F.TYPE_BYTES:
            return chance.choice([b"", b"\xff\x00", b"abc"])
        unsigned = field.type in {F.TYPE_UINT32, F.TYPE_UINT64, F.TYPE_FIXED32, F.TYPE_FIXED64}
        bits = 64 if field.type in {F.TYPE_INT64, F.TYPE_UINT64, F.TYPE_FIXED64, F.TYPE_SFIXED64, F.TYPE_SINT64} else 32
        low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return chance.choice([0, 1, low, high, chance.randint(low, high)])

    def paths(self) -> list[Path]:
        """Return some paths to values."""
        found = list(_paths(self.root, (), 3))
        return self.chance.sample(found, min(len(found), self.chance.randint(1, 6)))


def _paths(message: Any, prefix: Path, depth: int) -> Iterator[Path]:
    for field in message.fields:
        name: tuple[Path, ...] = ((*prefix, field.name),)
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            kind = inner.fields_by_name["key"].type
            keys: list[str | int] = ["true", "false"] if kind == F.TYPE_BOOL else [0, 1]
            keys = ["", "a", "é"] if kind == F.TYPE_STRING else keys
            name = tuple((*name[0], key) for key in keys)
            inner = inner.fields_by_name["value"].message_type
        elif field.is_repeated:
            name = tuple((*name[0], index) for index in (0, 1))
        for path in name:
            if inner is None:
                yield path
                continue
            if inner.full_name == "google.protobuf.Timestamp" or inner.full_name.endswith("Value"):
                yield path
            if depth:
                yield from _paths(inner, path, depth - 1)


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Change, remove, insert or repeat some bytes."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(found):
                found[at] = chance.choice([0, 1, 2, 3, 4, 127, 128, 255, chance.randrange(256)])
            case 2:
                del found[at : at + chance.randint(1, 3)]
            case 3:
                found[at:at] = chance.randbytes(chance.randint(1, 3))
            case 4:
                found[at:at] = chance.choice([b"\xff" * 9 + b"\x01", b"\x80\x00", b"\x80\x80\x80\x80\x10", b"\x0b\x0c"])
            case _:
                found += found[chance.randrange(len(found) + 1) :]
    return bytes(found)
