"""A Prefect server, all deployments on it, and a worker that runs them from another folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from kafka_sort.main import PREFECT_DEFAULTS
from kafka_sort.prefect_server import free_port, wait_until_healthy

PREFECT = str(Path(sys.executable).with_name("prefect"))
ROOT = Path(__file__).parent.parent
POOL = "kafka-sort"
POOLS = (POOL, "kafka-sort-dask")


class Server:
    """A server with a database of its own; the same one after `stop` and `start`."""

    def __init__(self, home: Path, settings: dict[str, str] | None = None, host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = free_port()
        self._home = home
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def api(self) -> str:
        return f"http://{self._host}:{self._port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """The variables for processes that report to it."""
        return {"PREFECT_HOME": str(self._home), "PREFECT_API_URL": self.api, **PREFECT_DEFAULTS}

    def start(self) -> None:
        command = [PREFECT, "server", "start", "--host", self._host, "--port", str(self._port)]
        environment = os.environ | self.environment | self._settings
        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait_until_healthy(self._process, self.api)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)


class Deployments:
    """The `prefect` command, without questions, and the worker."""

    def __init__(self, bootstrap_servers: str, folder: Path, environment: dict[str, str]) -> None:
        self._command = [PREFECT, "--no-prompt"]
        self._folder = folder
        self._environment = (
            os.environ
            | environment
            | {
                "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
                "KAFKA_SORT_HOME": str(ROOT),
                # A run starts within a second of its time, not ten.
                "PREFECT_WORKER_QUERY_SECONDS": "1",
            }
        )
        self._worker: subprocess.Popen[bytes] | None = None

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy(self) -> None:
        for pool in POOLS:
            self("work-pool", "create", pool, "--type", "process", "--overwrite")
        self("deploy", "--all")
        # At the full hour a scheduled run would take the slot of a test's run.
        self("deployment", "schedule", "pause", "--all")

    @property
    def worker_log(self) -> Path:
        """The log of all workers, with the output of their flow runs."""
        return self._folder / "worker.log"

    def is_idle(self) -> bool:
        """Whether no process of a flow run is left below the worker."""
        assert self._worker is not None
        return not psutil.Process(self._worker.pid).children(recursive=True)

    def run_script(self) -> None:
        """deploy/deploy.sh, from another folder, as its user has `prefect` on PATH."""
        path = os.pathsep.join((str(Path(PREFECT).parent), self._environment["PATH"]))
        script = ["/bin/sh", str(ROOT / "deploy" / "deploy.sh")]
        environment = self._environment | {"PATH": path}
        subprocess.run(script, cwd=self._folder, env=environment, check=True, capture_output=True, timeout=300)
        self("deployment", "schedule", "pause", "--all")

    def start_worker(self) -> None:
        self._worker = self._start(POOL, {})

    @contextmanager
    def working(self, pool: str, **environment: str) -> Iterator[None]:
        """Run another worker for the time of the block."""
        worker = self._start(pool, environment)
        try:
            yield
        finally:
            worker.terminate()
            worker.wait(60)

    def _start(self, pool: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [*self._command, "worker", "start", "--pool", pool]
        with self.worker_log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=self._folder, env=self._environment | environment, stdout=log, stderr=subprocess.STDOUT
            )

    def stop_worker(self) -> None:
        if self._worker is not None:
            self._worker.terminate()
            try:
                self._worker.wait(30)
            except subprocess.TimeoutExpired:
                # Prefect's worker was seen to wait for ever once its cancel observer had ended.
                self.kill_worker()

    def kill_worker(self) -> list[int]:
        """Kill the worker and its runs at once, as a loss of power would; return how they ended."""
        assert self._worker is not None
        processes = psutil.Process(self._worker.pid).children(recursive=True)
        for process in processes:
            process.kill()
        self._worker.kill()
        gone, alive = psutil.wait_procs(processes, 30)
        assert not alive
        return [len(gone), self._worker.wait(30)]
