"""Schemas of Protobuf: serialized descriptors, as `protoc --include_imports -o` writes them, and texts of .proto files.

A schema that cannot be used is a SettingsError, before any work.
"""

import base64
import hashlib
import importlib.resources
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

from tasks.errors import SettingsError, TransientError
from tasks.settings.load import nearest

_SHOWN_NAMES = 8


def find_message(content: bytes, indexes: tuple[int, ...], where: str) -> Any:
    """Return the descriptor of the message at these indexes of a set's last file. LookupError if there is none."""
    files = _read_files(content, where)
    return _make_pool(files, where).FindMessageTypeByName(message_at(list(files.values())[-1], indexes))


@lru_cache(maxsize=128)
def compile_once(text: str, references: tuple[tuple[str, str], ...]) -> bytes:
    """Make a FileDescriptorSet of a registry's schema, whose file is the last, once in a process; see `compile_proto`.

    `references`: the names and texts that it imports. Some clients register descriptors in base64 in place of .proto
    texts, and some registries hand these out again.
    """
    texts = dict(references)
    own = "schema.proto"
    if own in texts:
        own = f"schema-{hashlib.sha256(text.encode()).hexdigest()[:16]}.proto"
    texts[own] = text
    found = ((name, _read_descriptor(name, content)) for name, content in texts.items())
    made = {name: file for name, file in found if file is not None}
    return _compile({name: content for name, content in texts.items() if name not in made}, own, list(made.values()))


def _read_descriptor(name: str, text: str) -> Any:
    """Return the FileDescriptorProto that a text is in base64; None if it is none."""
    try:
        file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (ValueError, DecodeError):
        return None
    file.name = name
    return file


def load_message(content: bytes, name: str, where: str) -> Any:
    """Return the descriptor of a message in a serialized FileDescriptorSet.

    `where` names the set in errors. SettingsError if it is none, lacks an import, or has no such message.
    """
    files = _read_files(content, where)
    pool = _make_pool(files, where)
    try:
        return pool.FindMessageTypeByName(name)
    except KeyError:
        known = [message for file in files.values() for message in message_names(file)]
        shown = f"{', '.join(known[:_SHOWN_NAMES])}{', …' * (len(known) > _SHOWN_NAMES)}"
        hint = nearest(name, known) or _hint_package(name, known)
        raise SettingsError(f"{where} has no message {name!r}: it has {shown}{hint}") from None


def _hint_package(name: str, known: list[str]) -> str:
    """Return the full name of a message that was given without its package."""
    full = [other for other in known if other.rpartition(".")[2] == name]
    return f"; did you mean {full[0]}?" if full else ""


def _read_files(content: bytes, where: str) -> dict[str, Any]:
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(content).file
    except DecodeError:
        files = []
    if not files or not all(file.name for file in files):
        raise SettingsError(f"{where} is no set of descriptors: make it with protoc --include_imports -o FILE X.proto")
    return {file.name: file for file in files}


def _make_pool(files: Mapping[str, Any], where: str) -> Any:
    """Add each file behind those that it imports, whatever their order in the set."""
    pool, done = descriptor_pool.DescriptorPool(), set[str]()

    def add(name: str, importer: str) -> None:
        if name in done:
            return
        done.add(name)
        if name not in files:
            raise SettingsError(
                f"{where} lacks {name}, which {importer} imports: make it with protoc --include_imports"
            )
        for imported in files[name].dependency:
            add(imported, name)
        try:
            pool.AddSerializedFile(files[name].SerializeToString())
        except TypeError as error:
            raise SettingsError(f"{where}: {error}") from None

    for name in files:
        add(name, name)
    return pool


def message_names(file: Any) -> list[str]:
    """Return the full names of a file's messages (FileDescriptorProto), nested ones included, in their order."""

    def names(messages: Any, prefix: str) -> list[str]:
        own = [(f"{prefix}{message.name}", message) for message in messages if not message.options.map_entry]
        return [name for full, message in own for name in (full, *names(message.nested_type, f"{full}."))]

    return names(file.message_type, f"{file.package}." if file.package else "")


def message_at(file: Any, indexes: tuple[int, ...]) -> str:
    """Return the full name of the message at these indexes, from the outside in, as Confluent's wire format has them.

    `file`: FileDescriptorProto. LookupError if there is none.
    """
    messages, name = file.message_type, file.package
    for index in indexes:
        name = f"{name}.{messages[index].name}" if name else messages[index].name
        messages = messages[index].nested_type
    if not indexes:
        raise LookupError("no indexes")
    return str(name)


def compile_proto(text: str, references: Mapping[str, str], name: str = "schema.proto") -> bytes:
    """Compile the text of a .proto file into a serialized FileDescriptorSet, in which its own file is the last.

    `references`: the texts of imported files by the names in their imports; Google's own need not be among them.
    SettingsError has the compiler's reason. It takes a tenth of a second, in a process of its own: the compiler is C++
    and prints its reasons.
    """
    return _compile({**references, name: text}, name)


def _compile(texts: Mapping[str, str], name: str, made: Sequence[Any] = ()) -> bytes:
    """Compile the file `name`; it and those that it imports are texts, or FileDescriptorProto in `made`."""
    with tempfile.TemporaryDirectory(prefix="kafka-sort-proto-") as folder:
        source, target, known = Path(folder, "source"), Path(folder, "descriptors"), Path(folder, "known")
        source.mkdir()
        for path, content in texts.items():
            _write_below(source, path, content)
        known.write_bytes(descriptor_pb2.FileDescriptorSet(file=made).SerializeToString())
        paths = [*(f"-I{path}" for path in (source, *_known_protos())), f"--descriptor_set_in={known}"]
        command = [sys.executable, "-m", "grpc_tools.protoc", *paths, "--include_imports", f"-o{target}"]
        # A name is looked for in the working folder first, where Python looks for modules, too: no text may be there.
        main = str(source / name) if name in texts else name
        done = subprocess.run([*command, main], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode < 0:
            raise TransientError(f"the compiler of .proto texts was ended by signal {-done.returncode}")
        if done.returncode or not target.exists():
            reason = " ".join(done.stderr.replace(f"{source}/", "").split())
            raise SettingsError(f"schema {name} does not compile: {reason or 'no reason given'}")
        return target.read_bytes()


def _write_below(folder: Path, name: str, text: str) -> None:
    path = folder.joinpath(name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise SettingsError(f"schema {name!r}: the name of an imported file leads out of its folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def require_compiler() -> None:
    """Raise SettingsError if the compiler of .proto texts is not installed."""
    _known_protos()


def _known_protos() -> list[str]:
    """Return the folders of Google's own .proto files: the well-known ones, and the common ones such as google/type."""
    try:
        known = importlib.resources.files("grpc_tools") / "_proto"
        common = importlib.resources.files("google.type").joinpath("date.proto")
    except ModuleNotFoundError as error:
        raise SettingsError(f"schemas of .proto text need the extra protobuf: {error}") from None
    return [str(known), str(Path(str(common)).parents[2])]
