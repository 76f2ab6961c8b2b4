"""Tables, on standard output unless that has data. Text in their cells is data: no terminal obeys it.

For scripts, one JSON object takes their place.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.printable import printable

# The width of output to a file: wide enough for the tables here, and the same on every machine.
_FILE_WIDTH = 140


def make_console(file: TextIO | None = None) -> Console:
    """Return a console for a stream, standard output by default, as wide as the terminal."""
    stream = file or sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _FILE_WIDTH, highlight=False, markup=False)


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, fold: bool = False, file: TextIO | None = None
) -> None:
    """Print one table. Cells that are too long end in an ellipsis, or go on in the next line with `fold`."""
    table = Table(title=Text(title), title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold" if fold else "ellipsis")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    make_console(file).print(table)


def print_json(facts: Mapping[str, Any]) -> None:
    """Print one JSON object in one line, in ASCII: whatever text it holds, a terminal shows it and does not obey it."""
    print(json.dumps(facts))
