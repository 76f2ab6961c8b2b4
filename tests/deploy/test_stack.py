"""The services of docker-compose.yml as processes of this machine, with the variables, commands and files it has.

Debian's programs stand for the images: postgresql, prometheus, prometheus-pushgateway. Kafka is the suite's broker.
"""

import json
import math
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tasks.observe.export import GATEWAY
from tests.cluster import Cluster, assert_sorted, sample_values, wait_for
from tests.command import Command, flags_of
from tests.deploy.files import DASHBOARD, PROMETHEUS, ROOT, SERVICES

pytestmark = pytest.mark.slow
PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus", "prometheus-pushgateway": "prometheus-pushgateway"}


def program(name: str) -> str:
    """Find the program; skip the test if it is not installed."""
    pattern = "/usr/lib/postgresql/*/bin/" + name
    path = shutil.which(name) or next((str(p) for p in sorted(Path("/").glob(pattern[1:]), reverse=True)), None)
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install {PACKAGES.get(name, 'postgresql')})")
    return path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def fetch(url: str | urllib.request.Request) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def answers(url: str) -> bool:
    try:
        fetch(url)
    except OSError:
        return False
    return True


class Stack:
    """Starts services of the compose file; each of their addresses becomes one of this machine."""

    def __init__(self, folder: Path, **addresses: str) -> None:
        self.folder = folder
        self.addresses = {name.replace("_", ":"): address for name, address in addresses.items()}
        self._processes: list[subprocess.Popen[bytes]] = []

    def place(self, name: str) -> str:
        """Return an address for `host:port` of the compose file."""
        return self.addresses.setdefault(name, f"127.0.0.1:{free_port()}")

    def local(self, text: str) -> str:
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        for name, address in self.addresses.items():
            text = text.replace(name, address)
        return text

    def environment(self, service: str) -> dict[str, str]:
        own = {name: self.local(str(value)) for name, value in SERVICES[service].get("environment", {}).items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "KAFKA_"))}
        # The variables that the Dockerfile sets.
        image = dict(re.findall(r"^(?:ENV|   ) (\w+)=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
        image |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "KAFKA_SORT_HOME": str(ROOT)}
        return inherited | image | {"PREFECT_HOME": str(self.folder / "prefect")} | own

    def run(self, service: str, *command: str, **over: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment(service) | over,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, service: str, *command: str, user: str | None = None, **over: str) -> None:
        with (self.folder / f"{service}.out").open("wb") as out, (self.folder / f"{service}.err").open("wb") as err:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=self.environment(service) | over,
                    # Another user may not enter the test's folder.
                    cwd="/" if user else self.folder,
                    stdout=out,
                    stderr=err,
                    user=user,
                    group=user,
                    extra_groups=[] if user else None,
                )
            )

    def wait_until_healthy(self, service: str) -> None:
        """Wait by the service's own health check, if that is a Python command; its ports are this machine's."""
        test = SERVICES[service]["healthcheck"]["test"]
        command = [sys.executable, *map(self.local, test[2:])] if test[1] == "python" else None
        url = next((part for part in map(self.local, test) if part.startswith("http")), "")

        def healthy() -> bool:
            process = self._processes[-1]
            assert process.poll() is None, (self.folder / f"{service}.err").read_text()[-3000:]
            return (
                subprocess.run(command, capture_output=True, check=False).returncode == 0 if command else answers(url)
            )

        wait_for(healthy, 180)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_postgres(stack: Stack, folder: Path) -> None:
    """Start Postgres as the image does: a cluster, a superuser with the password, a database."""
    initdb, postgres = program("initdb"), program("postgres")
    variables = stack.environment("postgres")
    user = None
    if os.geteuid() == 0:
        # Postgres refuses to run as root.
        user = "postgres"
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    secret = folder / "secret"
    secret.write_text(variables["POSTGRES_PASSWORD"])
    data = folder / "data"
    name = variables["POSTGRES_USER"]
    secret.chmod(0o644)
    options = ("-D", str(data), "-U", name, "--pwfile", str(secret), "--auth=scram-sha-256", "-E", "UTF8")
    made = subprocess.run(
        [initdb, *options], capture_output=True, text=True, user=user, group=user, check=False, cwd=folder
    )
    assert made.returncode == 0, made.stderr
    host, port = stack.place("postgres:5432").split(":")
    stack.start("postgres", postgres, "-D", str(data), "-h", host, "-p", port, "-k", str(folder), user=user)
    psql = [program("psql"), "-h", host, "-p", port, "-U", name, "-d", "postgres"]
    environment = os.environ | {"PGPASSWORD": variables["POSTGRES_PASSWORD"]}

    def create() -> bool:
        command = [*psql, "-c", f"CREATE DATABASE {variables['POSTGRES_DB']}"]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    wait_for(create, 60)


def start_pushgateway(stack: Stack) -> None:
    address = stack.place("pushgateway:9091")
    stack.addresses["127.0.0.1:9091"] = address
    arguments = [a.replace("/pushgateway/", f"{stack.folder}/pushgateway-") for a in SERVICES["pushgateway"]["command"]]
    stack.start("pushgateway", program("prometheus-pushgateway"), *arguments, f"--web.listen-address={address}")
    stack.wait_until_healthy("pushgateway")


def start_prometheus(stack: Stack) -> str:
    """Start Prometheus with our configuration, with targets on this machine, and a scrape every second."""
    address = stack.place("127.0.0.1:9090")
    stack.addresses["localhost:9090"] = address
    folder = stack.folder / "etc"
    shutil.copytree(PROMETHEUS, folder)
    config = folder / "prometheus.yml"
    wanted = yaml.safe_load(stack.local(config.read_text()).replace("15s", "1s"))
    for scrape in wanted["scrape_configs"]:
        # No name server knows the name.
        if scrape.pop("dns_sd_configs", None):
            scrape["static_configs"] = [{"targets": [stack.place("stream:9464")]}]
    config.write_text(yaml.safe_dump(wanted))
    places = {"/etc/prometheus": str(folder), "=/prometheus": f"={stack.folder}/tsdb"}
    arguments = SERVICES["prometheus"]["command"]
    for there, here in places.items():
        arguments = [argument.replace(there, here) for argument in arguments]
    stack.start("prometheus", program("prometheus"), *arguments, f"--web.listen-address={address}")
    stack.wait_until_healthy("prometheus")
    return f"http://{address}"


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """Return the result's series; AssertionError with Prometheus' own text if it refuses the query."""
    try:
        answer = json.loads(fetch(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{expression}: {error.read().decode()}") from error
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def value(prometheus: str, expression: str) -> float | None:
    found = query(prometheus, expression)
    return float(found[0]["value"][1]) if found else None


def panel_queries(job: str) -> list[tuple[str, str]]:
    """Return title and expression, with Grafana's variables replaced."""
    return [
        (panel["title"], target["expr"].replace("$job", job).replace("$__range", "1h"))
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]


def scheduled_runs(api: str) -> int:
    """Return the flow runs that wait for their time."""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    request = urllib.request.Request(
        f"http://{api}/api/flow_runs/count", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    return int(fetch(request))


@pytest.fixture
def stack(cluster: Cluster, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, kafka_29092=cluster.bootstrap_servers)
    yield stack
    stack.stop()


@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
)
def test_promtool(command: tuple[str, ...]) -> None:
    """Prometheus' own tool accepts configuration and rules, and each alert fires when it shall, and only then."""
    done = subprocess.run([program("promtool"), *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_last_success_survives_in_a_real_pushgateway(stack: Stack, command: Command, cluster: Cluster) -> None:
    """Two runs and a failed one: counters have grown, and the time of the last success is there, and older."""
    start_pushgateway(stack)
    gateway = stack.addresses["pushgateway:9091"]
    source = cluster.make_topic()
    job = command.job(source)

    def pushed() -> dict[str, float]:
        lines = (line for line in fetch(f"http://{gateway}/metrics").splitlines() if f'job="{job.name}"' in line)
        return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines)}

    environment = {GATEWAY: gateway}
    for seed in (1, 2):
        cluster.produce(source, sample_values(100, seed=seed))
        done = command.run(job, environment=environment)
        assert done.status == 0, done.err
    before = pushed()
    other = job.model_copy(update={"sorts": job.sorts[:1]})
    assert command.run(other, environment=environment).status == 2
    after = pushed()
    success = next(name for name in before if name.startswith("kafka_sort_last_success_timestamp_seconds"))
    published = next(name for name in before if "records_total" in name and 'stage="publish"' in name)
    failed = next(name for name in after if "runs_total" in name and 'outcome="failed"' in name)
    failure = next(name for name in after if name.startswith("kafka_sort_last_failure_timestamp_seconds"))
    assert before[published] == after[published] == 200
    assert after[success] == before[success] < after[failure]
    assert after[failed] == before[failed] + 1 == 1


def test_workers_of_dask(stack: Stack, command: Command, cluster: Cluster, prefect_server: str) -> None:
    """Scheduler and workers start by their commands, are healthy, and sort a topic as `worker-dask` asks them to."""
    stack.addresses["prefect:4200"] = prefect_server.removeprefix("http://").removesuffix("/api")
    # Two containers have each an address for what is one of this machine.
    scheduler = stack.place("dask-scheduler:8786")
    for number, name in enumerate(("dask-scheduler", "dask-worker", "dask-worker")):
        stack.addresses["127.0.0.1:8787"] = f"127.0.0.1:{free_port()}"
        line = [stack.local(part) for part in SERVICES[name]["command"]]
        line = [scheduler.split(":")[1] if part == "8786" else part for part in line]
        line += ["--host", "127.0.0.1"] if name == "dask-scheduler" else ["--name", f"worker-{number}"]
        stack.start(name, *line)
        stack.wait_until_healthy(name)
    environment = stack.environment("worker-dask")
    assert environment["KAFKA_SORT_SCHEDULER"] == f"tcp://{scheduler}"
    source = cluster.make_topic()
    cluster.produce(source, sample_values(200))
    job = command.job(source, runner="dask", memory_limit="4GB")
    done = command.run(job, environment={"KAFKA_SORT_SCHEDULER": environment["KAFKA_SORT_SCHEDULER"]})
    assert done.status == 0, done.err
    assert_sorted(cluster, job)


def test_the_stack(stack: Stack, command: Command, cluster: Cluster) -> None:
    """Runs on a worker beside a server on Postgres: Completed, logged as JSON, scraped, and each panel has its data."""
    programs = [program(name) for name in ("initdb", "prometheus", "prometheus-pushgateway")]
    assert programs
    with tempfile.TemporaryDirectory(prefix="kafka-sort-postgres-") as folder:
        start_postgres(stack, Path(folder))
        start_pushgateway(stack)
        api = stack.place("prefect:4200")
        stack.addresses["127.0.0.1:4200"] = api
        serve = [api.split(":")[0] if part == "0.0.0.0" else part for part in SERVICES["prefect"]["command"]]
        stack.start("prefect", *serve, "--port", api.split(":")[1])
        stack.wait_until_healthy("prefect")
        prometheus = start_prometheus(stack)
        # The second time stands for a restart of the stack: nothing is there twice.
        for _ in range(2):
            stack.run("deploy", str(ROOT / SERVICES["deploy"]["command"][0]))
        assert stack.run("deploy", "prefect", "automation", "ls").count("kafka-sort:") == len(
            list((ROOT / "deploy" / "automations").glob("*.yaml"))
        )
        # The schedules have made runs: one for every hour, and one for every night.
        wait_for(lambda: scheduled_runs(api) > 2, 120)
        health = stack.place("127.0.0.1:8080").split(":")[1]
        stack.start("worker", *SERVICES["worker"]["command"], PREFECT_WORKER_WEBSERVER_PORT=health)
        stack.wait_until_healthy("worker")

        source = cluster.make_topic()
        job = command.job(source)

        def sort(*flags: str, **over: Any) -> str:
            fields = job.model_dump(mode="json", exclude_unset=True) | over
            run = ("prefect", "deployment", "run", "sort-topic/on-demand", "--watch", "-p", f"job={json.dumps(fields)}")
            done = subprocess.run(
                [*run, *flags],
                env=stack.environment("deploy"),
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            return done.stdout + done.stderr

        published = f'sum(kafka_sort_records_total{{job="{job.name}", stage="publish"}})'
        for number, flags in enumerate(((), ("--job-variable", 'env={"KAFKA_SORT_FAILPOINT": "before-sort=raise"}'))):
            cluster.produce(source, [*sample_values(200, seed=number), b"no row"])
            assert "Completed" in sort(*flags)
            wait_for(lambda count=number + 1: value(prometheus, published) == count * 600)  # type: ignore[misc]
        assert_sorted(cluster, job, runs=2)
        assert "Failed" in sort(sorts=job.sorts[:1])
        wait_for(lambda: bool(query(prometheus, f'ALERTS{{alertname="KafkaSortRunFailed", job="{job.name}"}}')))

        # A stream goes on where the runs ended.
        stack.addresses |= {f"{host}:9464": stack.addresses["stream:9464"] for host in ("0.0.0.0", "127.0.0.1")}
        stack.start("stream", *SERVICES["stream"]["command"], *flags_of(job))
        stack.wait_until_healthy("stream")
        late = f'kafka_sort_end_to_end_latency_seconds_count{{job="{job.name}"}}'
        for seed in (10, 11):
            before = value(prometheus, late) or 0
            cluster.produce(source, sample_values(200, seed=seed))
            wait_for(lambda least=before: (value(prometheus, late) or 0) > least, 60)  # type: ignore[misc]
        wait_for(lambda: not query(prometheus, f'ALERTS{{alertname="KafkaSortRunFailed", job="{job.name}"}}'))
        for title, expression in panel_queries(job.name):
            wait_for(lambda e=expression: bool(query(prometheus, e)))  # type: ignore[misc]
            numbers = [float(series["value"][1]) for series in query(prometheus, expression)]
            assert all(math.isfinite(number) for number in numbers), f"{title} has no number"
        assert {series["metric"]["job"] for series in query(prometheus, "up == 1")} == {
            "prefect",
            "prometheus",
            "pushgateway",
            "stream",
        }
        lines = [json.loads(line) for line in (stack.folder / "worker.out").read_text().splitlines() if line[:1] == "{"]
        committed = [line for line in lines if line.get("event") == "committed"]
        assert [line["run"] for line in committed] == [1, 2]
        assert all(line["flow_run_id"] and line["timestamp"] for line in committed)
        assert "ERROR" not in (stack.folder / "prefect.err").read_text()
