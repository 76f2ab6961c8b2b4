"""The version of transactions that a broker of the tests speaks: chosen by a folder's format, read from its answers."""

import socket
import struct
import subprocess
from pathlib import Path

import pytest

from tasks.broker.runtime import FORMAT_SETTINGS, load_runtime

OLDER, NEWEST = 1, 2
# For tests over the fixtures `cluster` or `command`: they run on a broker of each `transaction.version`.
BOTH_TRANSACTION_VERSIONS = pytest.mark.parametrize(
    "transaction_version",
    [
        pytest.param(OLDER, id="transaction-version-1", marks=pytest.mark.slow),
        pytest.param(NEWEST, id="transaction-version-2"),
    ],
)
_API_VERSIONS, _VERSION = 18, 3
_FINALIZED_FEATURES = 2


def format_folder(data: Path, transaction_version: int) -> Path:
    """Format a data folder for an embedded broker by Kafka's own tool, and return it; it takes one more JVM, 2 s."""
    data.mkdir()
    settings = data / "format.properties"
    settings.write_text(FORMAT_SETTINGS.format(folder=data / "kafka"))
    arguments = ["format", "-t", "A" * 21 + "Q", "-c", str(settings)]
    feature = ["--feature", f"transaction.version={transaction_version}"]
    command = load_runtime().command("kafka.tools.StorageTool", *arguments, *feature, heap="128m")
    subprocess.run(command, check=True, capture_output=True)
    return data


def active_features(host: str, port: int) -> dict[str, int]:
    """Ask a broker for the levels of its features (the tagged fields of ApiVersions, KIP-584)."""
    names = b"".join(_compact(text) for text in (b"tests", b"1"))
    request = struct.pack(">hhihb", _API_VERSIONS, _VERSION, 1, -1, 0) + names + b"\0"
    with socket.create_connection((host, port), 10) as connection, connection.makefile("rb") as answers:
        connection.sendall(struct.pack(">i", len(request)) + request)
        size = struct.unpack(">i", answers.read(4))[0]
        return _Answer(answers.read(size)).features()


def _compact(text: bytes) -> bytes:
    return bytes([len(text) + 1]) + text


class _Answer:
    """The body of an ApiVersions response, read from its beginning to its end."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def features(self) -> dict[str, int]:
        _, error = self._take(">ih")
        assert error == 0
        for _ in range(self._varint() - 1):
            self._take(">hhh")
            self._skip_tags()
        self._take(">i")
        for _ in range(self._varint()):
            tag, size = self._varint(), self._varint()
            if tag == _FINALIZED_FEATURES:
                return dict(self._feature() for _ in range(self._varint() - 1))
            self._at += size
        return {}

    def _feature(self) -> tuple[str, int]:
        size = self._varint() - 1
        name = self._body[self._at : self._at + size].decode()
        self._at += size
        highest, _ = self._take(">hh")
        self._skip_tags()
        return name, highest

    def _take(self, form: str) -> tuple[int, ...]:
        found = struct.unpack_from(form, self._body, self._at)
        self._at += struct.calcsize(form)
        return found

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._body[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def _skip_tags(self) -> None:
        for _ in range(self._varint()):
            self._varint()
            size = self._varint()
            self._at += size
