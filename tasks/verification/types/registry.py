"""The types by name, one line for each."""

from collections.abc import Callable
from typing import Final

from tasks.verification.terms import Kind
from tasks.verification.types.base import EachType, KeyType
from tasks.verification.types.numbers import IntegerType, encode_bool, encode_decimal, encode_float
from tasks.verification.types.texts import CollatedType, NoCaseType, TextType, Utf8Type, encode_uuid
from tasks.verification.types.times import encode_count, encode_time

# Name → maker, from the parameter of the type.
_MAKERS: Final[dict[str, Callable[[str], KeyType]]] = {
    "int": lambda _: IntegerType(),
    "decimal": lambda _: EachType(encode_decimal),
    "float": lambda _: EachType(encode_float),
    "bool": lambda _: EachType(encode_bool),
    "time": lambda unit: EachType(encode_count(unit) if unit else encode_time),
    "uuid": lambda _: EachType(encode_uuid),
    "text": lambda parameter: _TEXTS[parameter]() if parameter in _TEXTS else CollatedType(parameter),
}
# Texts by their parameters; all others are collations.
_TEXTS: Final[dict[str, Callable[[], KeyType]]] = {"": TextType, "utf8": Utf8Type, "nocase": NoCaseType}


def make_type(kind: Kind) -> KeyType:
    """Return the type of that name. ValueError if this version has none."""
    try:
        return _MAKERS[kind.name](kind.parameter)
    except KeyError:
        raise ValueError(f"there is no type {kind.name}({kind.parameter})") from None
