"""Records which of the project's errors were raised: in this process, and in the commands that it ran.

A test marked `@pytest.mark.raises("SomeError")` fails unless that very error was raised while it ran.
"""

import atexit
from pathlib import Path
from typing import Any

from tasks.errors import KafkaSortError

_FILE = "raised"
names: set[str] = set()


def watch() -> None:
    """Note each error that is made from now on."""

    def note(kind: type[KafkaSortError], *args: Any, **_: Any) -> KafkaSortError:
        names.add(kind.__name__)
        error: KafkaSortError = Exception.__new__(kind, *args)
        return error

    KafkaSortError.__new__ = note  # type: ignore[method-assign,assignment]


def watch_child(folder: Path) -> None:
    """Leave the names in the folder at a command's end."""
    watch()
    atexit.register(lambda: (folder / _FILE).write_text("\n".join(names)))


def note_child(folder: Path) -> None:
    """Note the errors of a command that ended; a killed one leaves nothing."""
    if (folder / _FILE).exists():
        names.update((folder / _FILE).read_text().split())
