"""`make ui`: Prefect's pages with all deployments, workers that run them, and an embedded Kafka, until Ctrl-C.

The run history lies in PREFECT_HOME, where the commands and `make demo` write it as well. Kafka's data stays in
~/.cache/kafka-sort/ui, so that the jobs go on at the next start. Everything listens on loopback only, and ends with
this process, in whatever way that ends.
"""

import sys

from tasks.signals import answer, stop_event, watch

if __name__ == "__main__":
    # The imports below take a second.
    watch()

import contextlib
import os
import socket
import subprocess
from pathlib import Path
from typing import Final

from kafka_sort.environment import prepare_environment
from kafka_sort.main import PREFECT_DEFAULTS
from kafka_sort.prefect_server import free_port, spawn, wait_until_healthy
from kafka_sort.process import run
from tasks.broker.embedded import EmbeddedBroker
from tasks.errors import KafkaSortError, SettingsError, TerminalError
from tasks.generate import generate_records
from tasks.kafka.clients import make_admin
from tasks.kafka.topics import describe_topic
from tasks.settings.connection import Connection
from tasks.settings.folders import home_folder
from tasks.settings.options import SAMPLE_TOPIC
from tasks.settings.proxies import bypass_proxies

# A worker takes the runs of one pool.
POOLS: Final = ("kafka-sort", "kafka-sort-dask")
_ROOT: Final = Path(__file__).parent.parent
_DEPLOYMENTS: Final = _ROOT / "prefect.yaml"
FOLDER: Final = home_folder() / ".cache" / "kafka-sort" / "ui"
_PREFECT: Final = str(Path(sys.executable).with_name("prefect"))
_PORT: Final = 4200
_SAMPLE_RECORDS: Final = 100_000
_STOP_SECONDS: Final = 30
_LOOK_SECONDS: Final = 0.5
# Settings of the server. Prefect keeps leases in memory by default: a restart would end runs of limited deployments.
SERVER_SETTINGS: Final = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


def run_ui(folder: Path) -> None:
    """Start all of it, print the address, and wait. Kafka's data and Prefect's logs go to `folder`."""
    if not _DEPLOYMENTS.exists():
        raise SettingsError(
            f"the pages need a checkout of the project, and {_DEPLOYMENTS} is not there: the installed package has the "
            "commands alone; clone the repository and run make ui in it"
        )
    with contextlib.ExitStack() as stack:
        print("starting Kafka and Prefect", flush=True)
        broker = stack.enter_context(EmbeddedBroker(data=folder / "kafka"))
        _fill(Connection(broker.bootstrap_servers))
        port = free_port() if _listens(_PORT) else _PORT
        address = f"http://127.0.0.1:{port}"
        environment = {
            **{name: value for name, value in PREFECT_DEFAULTS.items() if not name.endswith("CONSOLE_LEVEL")},
            **SERVER_SETTINGS,
            "PREFECT_API_URL": f"{address}/api",
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "KAFKA_SORT_HOME": str(_ROOT),
        }
        bypass_proxies(address)
        serve = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
        running = {"server": _start(stack, folder, environment, "server", *serve)}
        wait_until_healthy(running["server"], f"{address}/api")
        for pool in POOLS:
            _run(environment, "work-pool", "create", pool, "--type", "process", "--overwrite")
        _run(environment, "deploy", "--all")
        for pool in POOLS:
            name = f"worker-{pool}"
            running[name] = _start(stack, folder, environment, name, "worker", "start", "--pool", pool)
        # It waits until all of them have ended: a signal ends this command in order.
        stop = stack.enter_context(stop_event())
        print(f"Prefect {address}\nKafka {broker.bootstrap_servers}, data in {folder}\nCtrl-C ends both", flush=True)
        while not stop.wait(_LOOK_SECONDS):
            broker.check_alive()
            for name, process in running.items():
                if process.poll() is not None:
                    raise TerminalError(f"Prefect's {name} has ended: see {_log(folder, name)}")


def _fill(connection: Connection) -> None:
    """Fill a source for the default job, so that the first click works."""
    if describe_topic(make_admin(connection), SAMPLE_TOPIC) is None:
        generate_records(connection, SAMPLE_TOPIC, _SAMPLE_RECORDS, 1, 4)


def _start(
    stack: contextlib.ExitStack, folder: Path, environment: dict[str, str], name: str, *arguments: str
) -> subprocess.Popen[bytes]:
    with _log(folder, name).open("wb") as log:
        process = spawn([_PREFECT, *arguments], environment, stdout=log)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)


def _run(environment: dict[str, str], *arguments: str) -> None:
    """Run a command of Prefect's to its end; raise its output if it fails."""
    done = subprocess.run(
        [_PREFECT, "--no-prompt", *arguments],
        cwd=_ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TerminalError(f"prefect {' '.join(arguments)}: {done.stdout}{done.stderr}")


def _log(folder: Path, name: str) -> Path:
    return folder / f"prefect-{name}.log"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(folder: Path = FOLDER) -> int:
    """Run until a signal; return the exit status."""
    try:
        prepare_environment()
        run_ui(folder)
    except KafkaSortError as error:
        print(f"kafka-sort: {error}", file=sys.stderr)
        return error.exit_code
    answer()
    print("stopped", flush=True)
    return 0


if __name__ == "__main__":
    run(main)
