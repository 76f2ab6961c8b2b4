"""Reads the rows of files: their beginning before any work, then all, in blocks, with what finds their keys."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from tasks.errors import SettingsError
from tasks.fill import LARGEST_BYTES
from tasks.loading.beginnings import check_block, check_documents
from tasks.loading.files import InputFile
from tasks.loading.keys import KeyFinder
from tasks.loading.layout import Layout, LoadSettings
from tasks.loading.lines import BrokenInputError, Rows
from tasks.printable import printable


def open_files(settings: LoadSettings, layout: Layout) -> list[InputFile]:
    """Open each file, and look at its first rows. SettingsError if one cannot be read, or is not what it should be.

    Files that can be read only once stay open.
    """
    files = [InputFile(path) for path in settings.files]
    for file in files:
        with _settings_errors(file):
            file.open()
            _check_beginning(file, layout)
        if file.is_regular:
            file.close()
    return files


@contextmanager
def _settings_errors(file: InputFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"{printable(file.name)}: {error.strerror or error}: name a file that can be read"
        ) from None
    except BrokenInputError as error:
        raise SettingsError(printable(f"{file.name}: {error}")) from None


def _check_beginning(file: InputFile, layout: Layout) -> None:
    block, last = file.peek()
    check_block(block, layout.format, file.path, last=last)
    cutter = layout.cutter(LARGEST_BYTES)
    rows = cutter.cut(block, last=last)
    if last:
        cutter.cut(b"", last=True)
    if not len(rows):
        return
    finder = layout.finder(_first(rows) if layout.skip_header else None)
    rows = rows.only(slice(1, None)) if layout.skip_header else rows
    if len(rows):
        if layout.format == "json":
            check_documents(_begin(rows), file.path, whole=last)
        if finder is not None:
            _check_keys(rows, finder)


def _check_keys(rows: Rows, finder: KeyFinder) -> None:
    """Raise BrokenInputError if most rows have no key: then the column is wrong, and not the rows."""
    values = rows.values()
    keys = finder.find(values)
    if 2 * keys.null_count > len(rows):
        why = explain_missing(rows, values, keys, finder)
        raise BrokenInputError(f"{keys.null_count:,} of its first {len(rows):,} rows have no key: {why}")


def explain_missing(rows: Rows, values: pa.Array, keys: pa.Array, finder: KeyFinder) -> str:
    """Say where the first row without a key is, and why it has none."""
    row = int(np.argmax(np.asarray(keys.is_null())))
    return f"line {rows.first[row]:,}: {finder.explain(values[row].as_py())}"


def read_rows(file: InputFile, layout: Layout, longest: int) -> Iterator[tuple[Rows, KeyFinder | None]]:
    """Yield the rows of an open file without its header line, in blocks, with what finds their keys.

    BrokenInputError where the file breaks off, a row is longer than `longest` bytes, or the header lacks the key.
    """
    cutter, finder, header_due = layout.cutter(longest), layout.finder(None), layout.skip_header
    for block, last in file.blocks():
        rows = cutter.cut(block, last=last)
        if header_due and len(rows):
            header_due, finder, rows = False, layout.finder(_first(rows)), rows.only(slice(1, None))
        yield rows, finder
        if last:
            # What is left has no end, and what was in front of it is sent by now.
            cutter.cut(b"", last=True)


def _first(rows: Rows) -> bytes:
    return _begin(rows, 1)[0]


def _begin(rows: Rows, count: int = 100) -> list[bytes]:
    """Return the first rows, as many as there are."""
    return list(rows.values(np.arange(min(count, len(rows)))).to_pylist())
