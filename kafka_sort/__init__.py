"""The command `kafka-sort`, and readers of sorted topics.

Guarantee: its own packages come first. They have common names, and a user's `tasks.py` on PYTHONPATH, or in the working
folder of `python -m`, is not taken for one of them.

In Python: `from kafka_sort import SortedTopic, merge_join`.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.reading.joining import merge_join
    from tasks.reading.sorted_topic import SortedRecord, SortedTopic

__all__ = ("SortedRecord", "SortedTopic", "merge_join")

_ROOT = str(Path(__file__).resolve().parent.parent)


class _OwnPackages(MetaPathFinder):
    """Finds `flows` and `tasks` beside this package, before Python searches its path."""

    def find_spec(
        self, fullname: str, _: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [_ROOT], target) if fullname in {"flows", "tasks"} else None


sys.meta_path.insert(0, _OwnPackages())


def __getattr__(name: str) -> Any:
    """Import the readers when they are asked for: a command must watch for signals before it imports anything."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "joining" if name == "merge_join" else "sorted_topic"
    return getattr(import_module(f"tasks.reading.{module}"), name)
