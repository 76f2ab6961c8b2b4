"""The key types by name, one line for each."""

from collections.abc import Callable
from functools import cache
from typing import Final

from tasks.settings.column_types import NOCASE, UTF8, ColumnType
from tasks.types.base import KeyType
from tasks.types.bools import BoolType
from tasks.types.collated import CollatedType
from tasks.types.decimals import DecimalType
from tasks.types.floats import FloatType
from tasks.types.integers import IntegerType
from tasks.types.nocase import NocaseType
from tasks.types.texts import TextType
from tasks.types.times import TimeType
from tasks.types.utf8 import Utf8Type
from tasks.types.uuids import UuidType


def _text_type(parameter: str) -> KeyType:
    if not parameter:
        return TextType()
    own = {NOCASE: NocaseType, UTF8: Utf8Type}.get(parameter)
    return own() if own else CollatedType(collation=parameter)


# Name → maker, from the parameter of the type.
_MAKERS: Final[dict[str, Callable[[str], KeyType]]] = {
    "int": lambda _: IntegerType(),
    "decimal": lambda _: DecimalType(),
    "float": lambda _: FloatType(),
    "bool": lambda _: BoolType(),
    "time": TimeType,
    "uuid": lambda _: UuidType(),
    "text": _text_type,
}


@cache
def key_type(kind: ColumnType) -> KeyType:
    """Return the type of key columns that a job names."""
    return _MAKERS[kind.name](kind.parameter)
