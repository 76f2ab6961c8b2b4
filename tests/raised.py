"""Which of the project's errors came up: in this process, and in the commands that it ran.

A test marked `@pytest.mark.raises("SomeError")` fails unless that very error came up while it ran.
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
    """In a command: leave the names in its folder at its end."""
    watch()
    atexit.register(lambda: (folder / _FILE).write_text("\n".join(names)))


def note_child(folder: Path) -> None:
    """Of a command that ended; one that was killed leaves nothing."""
    if (folder / _FILE).exists():
        names.update((folder / _FILE).read_text().split())
