"""The key types by name, one line for each."""

from collections.abc import Callable
from typing import Final

from tasks.settings.column_types import ColumnType
from tasks.types.base import KeyType
from tasks.types.integers import IntegerType
from tasks.types.texts import TextType

# Name → maker, from the parameter of the type.
_MAKERS: Final[dict[str, Callable[[str], KeyType]]] = {
    "int": lambda _: IntegerType(),
    "text": lambda _: TextType(),
}


def key_type(kind: ColumnType) -> KeyType:
    """Return the type of key columns that a job names."""
    return _MAKERS[kind.name](kind.parameter)
