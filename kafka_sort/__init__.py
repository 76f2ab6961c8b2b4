"""The command `kafka-sort`.

Guarantee: its own packages come first. They have common names, and a user's `tasks.py` on PYTHONPATH, or in the working
folder of `python -m`, is not taken for one of them.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_ROOT = str(Path(__file__).resolve().parent.parent)


class _OwnPackages(MetaPathFinder):
    """Finds `flows` and `tasks` beside this package, before Python searches its path."""

    def find_spec(
        self, fullname: str, _: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [_ROOT], target) if fullname in {"flows", "tasks"} else None


sys.meta_path.insert(0, _OwnPackages())
