"""Turns a message and the places that are wanted into the fields that cursors move over, in ascending order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from tasks.formats.protobuf.cursors import Cursors
from tasks.formats.protobuf.paths import Member
from tasks.formats.protobuf.slots import Slot

# Larger numbers have tags of more than two bytes.
_LARGEST_NUMBER: Final = (1 << 11) - 1
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_SIZES: Final = {
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
}
_WIRES: Final = {8: _EIGHT_BYTES, 4: _FOUR_BYTES, 0: _VARINT}
# A slot, and how many of its steps lead to the message.
Want = tuple[Slot, int]


@dataclass(frozen=True)
class PlannedField:
    """A field as it is written. `tag`: its one or two bytes; `skip` moves cursors behind the tag over a value."""

    tag: bytes
    skip: Callable[[Cursors], None]
    is_repeated: bool


class Plan:
    """The fields of a message. A record with others is not proven: with groups, and those with large numbers.

    `known`: the plans of messages without a place that is wanted, by name. `defaults`: the slots of fields that have
    a value also where they are not sent.
    """

    def __init__(self, message: Any, wants: Sequence[Want], known: "dict[str, Plan]") -> None:
        self._message, self._wants, self._known = message, wants, known
        if not wants:
            known[message.full_name] = self
        ending = [slot for slot, depth in wants if depth + 1 == len(slot.steps)]
        self.defaults = [slot for slot in ending if not slot.leaf.has_presence]

    @cached_property
    def fields(self) -> list[PlannedField]:
        """The fields, made when they are asked for: a message may hold itself."""
        if self._message.GetOptions().message_set_wire_format:
            return []
        fields = sorted(self._message.fields, key=lambda one: int(one.number))
        return [planned for one in fields if one.number <= _LARGEST_NUMBER for planned in self._plan(one)]

    def _plan(self, one: Any) -> Iterable[PlannedField]:
        """Yield the ways in which a field may be written."""
        wants = [want for want in self._wants if _leads_to(want, one)]
        slots = [slot for slot, depth in wants if depth + 1 == len(slot.steps)]
        if one.type == FieldDescriptor.TYPE_GROUP:
            return
        if one.message_type is not None:
            inner = self._plan_inner(one.message_type, [(slot, depth + 1) for slot, depth in wants])
            yield PlannedField(_tag(one, _LENGTH), partial(Cursors.enter, plan=inner), one.is_repeated)
        elif one.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
            skip = Cursors.skip_text if one.type == FieldDescriptor.TYPE_STRING else Cursors.skip_bytes
            yield PlannedField(_tag(one, _LENGTH), partial(skip, slots=slots), one.is_repeated)
        else:
            size = _SIZES.get(one.type, 0)
            if one.is_repeated:
                yield PlannedField(_tag(one, _LENGTH), partial(Cursors.skip_packed, size=size), True)
            number = partial(Cursors.skip_fixed, size=size) if size else Cursors.skip_varint
            yield PlannedField(_tag(one, _WIRES[size]), partial(number, slots=slots), one.is_repeated)

    def _plan_inner(self, message: Any, wants: Sequence[Want]) -> "Plan":
        known = None if wants else self._known.get(message.full_name)
        return known or Plan(message, wants, self._known)


def _leads_to(want: Want, one: Any) -> bool:
    slot, depth = want
    step = slot.steps[depth]
    return isinstance(step, Member) and bool(step.field.number == one.number)


def _tag(one: Any, wire: int) -> bytes:
    tag = one.number << 3 | wire
    return bytes([tag]) if tag < 0x80 else bytes([tag & 0x7F | 0x80, tag >> 7])
