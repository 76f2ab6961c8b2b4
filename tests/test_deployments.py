"""prefect.yaml: no key of it is one that Prefect passes over, and its deployments run on a real server and worker."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from distributed import LocalCluster
from prefect import Flow
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import load_flow_from_entrypoint
from pydantic import BaseModel

from kafka_sort.main import STREAM_DEFAULTS
from kafka_sort.ui import POOLS as UI_POOLS
from tasks.dask.orders import TOPIC
from tasks.settings.job import Job
from tests.cluster import Cluster, assert_sorted, sample_values, wait_for
from tests.command import Command
from tests.deployed import POOLS, ROOT, Deployments
from tests.history import History

FILE = ROOT / "prefect.yaml"
AUTOMATIONS = sorted((ROOT / "deploy" / "automations").iterdir())


def load() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def assert_known(keys: dict[str, Any], model: type[BaseModel], *also: str) -> None:
    """Assert that each key is known: Prefect ignores a misspelt one in silence."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    assert set(keys) <= known | set(also)


def test_a_stream_has_what_the_command_gives_it() -> None:
    """The deployment of a stream sets the same variables as the command, which bound its memory."""
    (stream,) = (d for d in load()["deployments"] if d["entrypoint"] == "flows/stream_topic.py:stream_topic")
    environments = [d["work_pool"]["job_variables"]["env"] for d in load()["deployments"]]
    assert stream["work_pool"]["job_variables"]["env"] == environments[0] | STREAM_DEFAULTS


def test_large_jobs_have_workers_of_their_own() -> None:
    """Jobs on Dask have a pool, whose workers know the scheduler; no parameter names it. All pools are made."""
    (large,) = (d for d in load()["deployments"] if d.get("parameters", {}).get("job", {}).get("runner") == "dask")
    assert large["work_pool"]["name"] == "kafka-sort-dask"
    assert "scheduler" not in large["parameters"]["job"]
    pools = {d["work_pool"]["name"] for d in load()["deployments"]}
    (made,) = re.findall(r"^for pool in (.*); do$", (ROOT / "deploy" / "deploy.sh").read_text(), re.MULTILINE)
    assert set(made.split()) == set(UI_POOLS) == set(POOLS) == pools


def test_every_key_is_one_of_prefects() -> None:
    """Every key of prefect.yaml is in the models by which Prefect reads it."""
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
    """Every deployment names a flow that accepts its parameters."""
    names = set()
    for deployment in load()["deployments"]:
        flow: Flow[..., Any] = load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))
        # Parameters that are left out count, too, by their defaults.
        flow.validate_parameters(deployment.get("parameters", {}))
        assert deployment["description"]
        names.add(f"{flow.name}/{deployment['name']}")
    assert names == {
        "sort-topic/scheduled",
        "sort-topic/full-refresh",
        "sort-topic/on-demand",
        "sort-topic/large",
        "merge-topic/weekly",
        "stream-topic/on-demand",
        "verify-topic/nightly",
        "generate-records/on-demand",
    }


@pytest.mark.parametrize("file", AUTOMATIONS, ids=lambda file: file.stem)
def test_every_key_of_an_automation_is_one_of_prefects(file: Path) -> None:
    """Prefect has read all that is in the file: a misspelt key would be missing."""
    raw = yaml.safe_load(file.read_text())
    read = AutomationCore.model_validate(raw).model_dump(mode="json", exclude_unset=True)
    assert read.keys() == raw.keys()
    assert read["trigger"].keys() == raw["trigger"].keys()
    assert [action.keys() for action in read["actions"]] == [action.keys() for action in raw["actions"]]


# A wrong parameter, and a word of the server's answer.
REFUSED = [
    ({"source_topic": "no topic"}, "no topic"),
    ({"sorts": []}, "sorts"),
    ({"sorts": ["id:up"]}, "id:up"),
    ({"columns": "id:integer"}, "id:integer"),
    ({"delimiter": '"'}, "delimiter"),
    ({"delimiter": "newline"}, "delimiter"),
    ({"key_format": "int16"}, "int16"),
    ({"csv_quote": "single"}, "single"),
    ({"max_records": 0}, "max_records"),
    ({"start": "yesterday"}, "yesterday"),
    ({"timestamps": "old"}, "old"),
    ({"memory_limit": "much"}, "much"),
    ({"workdir": "here"}, "workdir"),
    ({"runner": "ray"}, "ray"),
    ({"runner": "dask", "scheduler": "here"}, "scheduler"),
    ({"retries": -1}, "retries"),
    ({"sort": ["id"]}, "sort"),
]


@pytest.mark.slow
def test_wrong_parameters_are_refused_when_the_run_is_created(prefect: Deployments, history: History) -> None:
    """Prefect's server refuses them: no worker starts a process to find out."""
    for wrong, word in REFUSED:
        with pytest.raises(httpx.HTTPStatusError) as refused:
            history.create("sort-topic/on-demand", {"job": wrong})
        assert refused.value.response.status_code in {409, 422}, wrong
        assert word in refused.value.response.text
    with pytest.raises(httpx.HTTPStatusError):
        history.create("sort-topic/on-demand", {"connection": "../secret"})
    with pytest.raises(httpx.HTTPStatusError):
        history.create("generate-records/on-demand", {"records": -1})
    with pytest.raises(httpx.HTTPStatusError):
        history.create("verify-topic/nightly", {"runs": 0})


@pytest.mark.parametrize("entrypoint", sorted({deployment["entrypoint"] for deployment in load()["deployments"]}))
def test_the_form(entrypoint: str) -> None:
    """Each field has a title, a description and its place, in the order of the model; no secret is among them."""
    flow: Flow[..., Any] = load_flow_from_entrypoint(f"{ROOT}/{entrypoint}")
    schema = flow.parameters.model_dump()
    assert all(parameter["description"] for parameter in schema["properties"].values())
    for model in schema["definitions"].values():
        fields = model["properties"]
        assert [field["position"] for field in fields.values()] == list(range(len(fields)))
        assert all(field["title"] and field["description"] for field in fields.values())
        assert not any(re.search("password|secret|token", name) for name in fields)


def test_the_form_of_a_job() -> None:
    """A choice is no free text, and the deployer's home is not the worker's."""
    flow: Flow[..., Any] = load_flow_from_entrypoint(f"{ROOT}/flows/sort_topic.py:sort_topic")
    schema = flow.parameters.model_dump()
    fields = schema["definitions"]["Job"]["properties"]
    assert list(fields) == list(Job.model_fields)
    assert fields["timestamps"]["enum"] == ["new", "keep"]
    assert schema["properties"]["job"]["default"]["workdir"] == "~/.cache/kafka-sort/work"


@pytest.mark.slow
def test_deployments_run_on_a_worker(
    prefect: Deployments, cluster: Cluster, command: Command, history: History
) -> None:
    """Deployments run as a user starts them: the names in them are found, and the run's log has our lines."""
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
    run = flow_run_id(done)
    logs = prefect("flow-run", "logs", run)
    assert "committed" in logs
    # At the end of the run's process DuckDB 2.0.0 printed some 26 lines.
    wait_for(prefect.is_idle, 60)
    assert "nanobind" not in logs + prefect.worker_log.read_text()
    # The server makes the runs of a schedule by itself.
    prefect("deployment", "schedule", "resume", "--all")
    scheduled = {
        "deployments": {"name": {"any_": ["scheduled"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    wait_for(lambda: bool(history.post("/flow_runs/filter", scheduled)), 120)
    prefect("deployment", "schedule", "pause", "--all")


@pytest.mark.slow
def test_a_large_job(prefect: Deployments, cluster: Cluster, command: Command) -> None:
    """Runs of the pool of large jobs go to the scheduler that their worker's environment names."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = command.job(source, runner="dask", memory_limit="4GB")
    parameters = json.dumps(job.model_dump(mode="json", exclude_unset=True))
    how: dict[str, Any] = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}
    with LocalCluster(n_workers=1, protocol="tcp://", host="127.0.0.1", **how) as workers:
        scheduler: Any = workers.scheduler
        assert not scheduler.get_events(TOPIC)
        with prefect.working("kafka-sort-dask", KAFKA_SORT_SCHEDULER=scheduler.address):
            done = prefect("deployment", "run", "sort-topic/large", "--watch", "-p", f"job={parameters}")
        assert "Completed" in done
        assert scheduler.get_events(TOPIC)
    assert_sorted(cluster, job)


@pytest.mark.slow
def test_deploying_twice_is_as_deploying_once(prefect: Deployments, history: History) -> None:
    """`prefect automation create` adds a second one of a name; deploy.sh does not."""
    names = {yaml.safe_load(file.read_text())["name"] for file in AUTOMATIONS}
    try:
        for _ in range(2):
            prefect.run_script()
            found = [automation["name"] for automation in history.post("/automations/filter", {})]
            assert sorted(name for name in found if name in names) == sorted(names)
        deployments = [deployment["name"] for deployment in history.post("/deployments/filter", {})]
        assert sorted(deployments) == sorted(deployment["name"] for deployment in load()["deployments"])
    finally:
        # Other tests must not see it.
        for name in names:
            prefect("automation", "delete", name)


@pytest.mark.slow
def test_a_run_names_its_connection(prefect: Deployments, cluster: Cluster, command: Command, history: History) -> None:
    """A Secret block holds the properties; the run has its name among its parameters, and nothing else of it."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = command.job(source)
    name = f"c-{uuid4().hex[:8]}"
    block = {"value": f"bootstrap.servers={cluster.bootstrap_servers}\nclient.id=by-profile\n"}
    history.make_secret(f"kafka-sort-{name}", block)
    fields = {"job": job.model_dump(mode="json", exclude_unset=True)}
    elsewhere = {"env": {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}}
    run = history.wait(history.create("sort-topic/on-demand", {**fields, "connection": name}, job_variables=elsewhere))
    assert run["state_name"] == "Completed", run["state"]
    assert_sorted(cluster, job)
    assert run["parameters"]["connection"] == name
    assert "by-profile" not in json.dumps(run)
    absent = history.wait(history.create("sort-topic/on-demand", {**fields, "connection": "absent"}))
    assert absent["state"]["message"].startswith("there is no Secret block kafka-sort-absent")


def flow_run_id(output: str) -> str:
    """Find the id in the output of `prefect deployment run`."""
    return next(line.split()[-1] for line in output.splitlines() if "UUID:" in line)
