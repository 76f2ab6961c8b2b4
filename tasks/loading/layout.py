"""The settings of a load, and what follows from them: how rows are cut, and where their keys are."""

from dataclasses import dataclass
from typing import Final

from tasks.errors import SettingsError
from tasks.fill import check_topic
from tasks.formats.base import RejectedError
from tasks.loading.files import STANDARD_INPUT, InputFile
from tasks.loading.keys import FieldKeys, KeyFinder, PathKeys, field_names, find_place
from tasks.loading.lines import BrokenInputError, LineCutter
from tasks.settings.paths import parse_path, unquote
from tasks.settings.sorts import parse_delimiter, read_columns

_SUFFIXES: Final = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}


@dataclass(frozen=True)
class LoadSettings:
    """A load as a person asks for it; None is for what was not given. `from_line`: of the first file, from 1.

    `format`: `csv`, `json` or `lines`.
    """

    files: tuple[str, ...]
    topic: str
    partitions: int = 4
    replication_factor: int | None = None
    format: str | None = None
    columns: str | None = None
    delimiter: str | None = None
    quotes: bool = True
    skip_header: bool = False
    key: str | None = None
    from_line: int = 1

    def check(self) -> "Layout":
        """Return what follows for all files. SettingsError if settings contradict each other."""
        check_topic(self.topic)
        if self.files.count(STANDARD_INPUT) > 1:
            raise SettingsError("FILE - is given twice, and standard input can be read once: name it once")
        kind = self.format or self._guess()
        try:
            return self._layout(kind)
        except ValueError as error:
            raise SettingsError(str(error)) from None

    def _guess(self) -> str:
        """Return the format by the files' names, or by settings that only one format has."""
        kinds = {_SUFFIXES.get(InputFile(path).suffix) for path in self.files}
        if len(kinds) > 1 and kinds - {None, "csv"} and kinds - {None, "json"}:
            raise SettingsError("files of CSV and of JSON by their names: load them apart, or give --format")
        of_csv = self.columns is not None or self.delimiter is not None or not self.quotes or self.skip_header
        known = next(iter(kinds - {None}), None)
        return known or ("csv" if of_csv else "json" if self.key is not None else "lines")

    def _layout(self, kind: str) -> "Layout":
        names = None if self.columns is None else tuple(map(unquote, read_columns(self.columns)))
        if kind == "csv":
            layout = Layout(kind, self._delimiter(), self.quotes, self.skip_header, names, self._name())
            if layout.key is not None and names is None and not self.skip_header:
                way = "give --skip-header if the first line names the columns, or name them by --columns"
                raise ValueError(f"--key {self.key}: {way}")
            if layout.key is not None and names is not None:
                layout.find_field(names)
            return layout
        given = {"--columns": self.columns, "--delimiter": self.delimiter, "--csv-quote": None if self.quotes else ""}
        if flags := [flag for flag, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(flags)}: only for --format csv, and this is {kind}")
        if kind == "lines" and self.key is not None:
            raise ValueError(f"--key {self.key}: lines have no columns; give --format csv or json")
        if self.key is not None:
            parse_path(self.key)
        return Layout(kind, skip_header=self.skip_header, key=self.key)

    def _delimiter(self) -> str:
        tabs = self.delimiter is None and all(InputFile(path).suffix == ".tsv" for path in self.files)
        return parse_delimiter("tab" if tabs else self.delimiter or ",")

    def _name(self) -> str | None:
        return None if self.key is None else unquote(self.key)


@dataclass(frozen=True)
class Layout:
    """How rows are cut, and where their keys are. `columns`: the names of fields, if they are not in a header line."""

    format: str
    delimiter: str = ","
    quotes: bool = True
    skip_header: bool = False
    columns: tuple[str, ...] | None = None
    key: str | None = None

    def cutter(self, longest: int) -> LineCutter:
        """Make what cuts one file; see LineCutter."""
        return LineCutter(self.delimiter if self.format == "csv" and self.quotes else None, longest)

    def finder(self, header: bytes | None) -> KeyFinder | None:
        """Make what finds keys in one file. BrokenInputError if the header line lacks the name."""
        if self.key is None:
            return None
        if self.format == "json":
            return PathKeys(self.key)
        if self.columns is None and header is None:
            return None
        try:
            names = self.columns or tuple(field_names(header or b"", self.delimiter, quotes=self.quotes))
            return self.find_field(names)
        except (RejectedError, ValueError) as error:
            raise BrokenInputError(f"its header line: {error}") from None

    def find_field(self, names: tuple[str, ...]) -> FieldKeys:
        """Make what takes the key's field out of rows with these. ValueError if it is none of them."""
        place = find_place(names, self.key or "")
        return FieldKeys(len(names), place, self.delimiter, quotes=self.quotes)
