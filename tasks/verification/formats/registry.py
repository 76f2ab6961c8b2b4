"""The formats by name, one line for each."""

from collections.abc import Callable
from typing import Final

from tasks.verification.formats.avro import AvroReader
from tasks.verification.formats.base import FormatReader, Request
from tasks.verification.formats.csv import make_csv_reader
from tasks.verification.formats.json import JsonReader


def _make_protobuf(request: Request) -> FormatReader:
    try:
        from tasks.verification.formats.protobuf import ProtobufReader
    except ModuleNotFoundError as error:
        way = "pip install 'kafka-sorting-pipeline[protobuf]'"
        raise ValueError(f"format protobuf needs the package {error.name}: {way}") from None
    return ProtobufReader(request)


_MAKERS: Final[dict[str, Callable[[Request], FormatReader]]] = {
    "csv": make_csv_reader,
    "json": JsonReader,
    "avro": AvroReader,
    "protobuf": _make_protobuf,
}


def make_reader(name: str, request: Request) -> FormatReader:
    """Return the reader of values or record keys of a format. ValueError if this version has none."""
    if name not in _MAKERS:
        raise ValueError(f"there is no format {name}")
    return _MAKERS[name](request)
