"""prefect.yaml: no key of it is one that Prefect passes over, and its deployments run on a real server and worker."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prefect import Flow
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.flows import load_flow_from_entrypoint
from pydantic import BaseModel

from tests.cluster import Cluster, assert_sorted
from tests.command import Command

ROOT = Path(__file__).parent.parent
FILE = ROOT / "prefect.yaml"
POOL = "kafka-sort"


def load() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def assert_known(keys: dict[str, Any], model: type[BaseModel], *also: str) -> None:
    """A key that is misspelt is ignored by Prefect, in silence."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    assert set(keys) <= known | set(also)


def test_every_key_is_one_of_prefects() -> None:
    raw = load()
    assert_known(raw, PrefectYamlModel, "definitions")
    assert raw["deployments"]
    for deployment in raw["deployments"]:
        assert_known(deployment, DeploymentConfig)
        assert deployment["version"] == version("kafka-sorting-pipeline")
        assert_known(deployment["work_pool"], WorkPoolConfig)
        assert_known(deployment.get("concurrency_limit", {}), ConcurrencyLimitSpec)
        for schedule in deployment.get("schedules", ()):
            assert_known(schedule, RawScheduleConfig)
            assert schedule["timezone"]
            assert schedule["slug"]


def test_every_deployment_has_a_flow_that_takes_its_parameters() -> None:
    names = set()
    for deployment in load()["deployments"]:
        flow: Flow[..., Any] = load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))
        # Also the parameters that are left out, by their defaults.
        flow.validate_parameters(deployment.get("parameters", {}))
        assert deployment["description"]
        names.add(f"{flow.name}/{deployment['name']}")
    assert names == {
        "sort-topic/scheduled",
        "sort-topic/on-demand",
        "verify-topic/nightly",
        "generate-records/on-demand",
    }


class Prefect:
    """The `prefect` command, without questions."""

    def __init__(self, cluster: Cluster) -> None:
        self._command = [str(Path(sys.executable).with_name("prefect")), "--no-prompt"]
        self._environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
            "KAFKA_SORT_HOME": str(ROOT),
        }

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

    def start(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            return subprocess.Popen([*self._command, *arguments], cwd=log.parent, env=self._environment, stdout=out)


@pytest.fixture
def prefect(prefect_server: str, cluster: Cluster, tmp_path: Path) -> Iterator[Prefect]:
    """All deployments, and a worker that runs them from another folder."""
    assert prefect_server
    prefect = Prefect(cluster)
    prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    prefect("deploy", "--all")
    worker = prefect.start(tmp_path / "worker.log", "worker", "start", "--pool", POOL)
    yield prefect
    worker.terminate()
    worker.wait(60)


@pytest.mark.slow
def test_deployments_run_on_a_worker(prefect: Prefect, cluster: Cluster, command: Command) -> None:
    """As a user starts them: what they name is found, and the run's log has our lines."""
    source = cluster.make_topic()
    job = command.job(source)
    made = prefect(
        *("deployment", "run", "generate-records/on-demand", "--watch"),
        *("-p", f"topic={source}", "-p", "records=1000"),
    )
    assert "Completed" in made
    parameters = json.dumps(job.model_dump(mode="json", exclude_unset=True))
    done = prefect("deployment", "run", "sort-topic/on-demand", "--watch", "-p", f"job={parameters}")
    assert "Completed" in done
    assert_sorted(cluster, job)
    logs = prefect("flow-run", "logs", flow_run_id(done))
    assert "committed" in logs


def flow_run_id(output: str) -> str:
    """The id in what `prefect deployment run` prints."""
    return next(line.split()[-1] for line in output.splitlines() if "UUID:" in line)
