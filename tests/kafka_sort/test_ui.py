"""`make ui` as a user sees it: the demo's history, deployments that run, and pages that say what they should."""

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tasks.ownership import own_job
from tasks.settings.job import Job
from tests.browser import BROWSER, open_browser
from tests.cluster import Cluster, wait_for
from tests.history import FINAL, History

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# Pictures for docs/prefect.md: KAFKA_SORT_PICTURES=docs make test-all ARGS=tests/kafka_sort/test_ui.py
PICTURES = os.environ.get("KAFKA_SORT_PICTURES")
START = "import sys; from pathlib import Path; from kafka_sort.ui import main; sys.exit(main(Path(sys.argv[1])))"


@dataclass(frozen=True)
class Ui:
    process: subprocess.Popen[bytes]
    pages: str
    kafka: Cluster
    history: History


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's own environment: no server in the settings, and a new Prefect database."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect-home"))}


@pytest.fixture(scope="module")
def ui(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """The demo, run once; then the pages."""
    demo = [str(Path(sys.executable).with_name("kafka-sort")), "demo", "--records", "20000"]
    subprocess.run(demo, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=240)
    folder = tmp_path_factory.mktemp("ui")
    log = folder / "out"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", START, str(folder)], env=environment, cwd=ROOT, stdout=out)
    try:
        wait_for(lambda: "Ctrl-C" in log.read_text() or process.poll() is not None, 180)
        said = dict(line.split(maxsplit=1) for line in log.read_text().splitlines())
        pages, kafka = said["Prefect"], said["Kafka"].partition(",")[0]
        yield Ui(process, pages, Cluster(kafka), History(f"{pages}/api"))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0


def test_the_demo_is_in_the_history(ui: Ui) -> None:
    """Its runs are there, under their names in the run history."""
    names = [run["name"] for run in ui.history.runs("source")]
    assert [name for name in names if name.endswith("· run 1")] == [
        "source · id,name,continent · 20.0k records · run 1"
    ]
    assert "source · id,name,continent · 5,000 records · run 2" in names


def test_the_default_job_runs_by_a_click(ui: Ui) -> None:
    """No field needs a value: there is a worker, a Kafka, and a source with records."""
    run = ui.history.wait(ui.history.create("sort-topic/on-demand", {}))
    assert run["state_name"] == "Completed", run["state"]
    assert "· 100.0k records · run 1" in run["name"]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH to look at the pages with")
def test_the_pages(ui: Ui, tmp_path: Path) -> None:
    """A finished, a failed and a running run, and the form, show in a real browser what a person must find there."""
    history = ui.history
    history.wait(history.create("generate-records/on-demand", {"records": 2_000_000, "seed": 7}))
    done = history.wait(history.create("sort-topic/on-demand", {"job": {"job_name": "people", "append": True}}))
    assert done["state_name"] == "Completed", done["state"]
    failed = history.wait(history.create("sort-topic/on-demand", {"job": {"source_topic": "orders"}}))
    waiting = Job(job_name="people", session_timeout=100.0, append=True)
    with own_job(waiting, ui.kafka.connection), open_browser(1400, 840) as page:
        parameters = {"job": {"job_name": "people", "session_timeout": 100.0, "append": True}}
        running = history.create("sort-topic/on-demand", parameters)
        history.wait(running, lambda run: run["state_type"] in {"RUNNING", *FINAL})

        page.open(f"{ui.pages}/v2/runs/flow-run/{done['id']}", done["name"], "Completed", "job:people")
        page.press("Artifacts")
        page.expect("summary-people", "plan-people", "progress-people")
        page.picture(tmp_path / "prefect-run.png")
        page.press("Task Runs")
        page.expect("dump source/0", "sort continent", "publish 1")
        summary = history.artifacts(done["id"])["summary-people"]["id"]
        page.open(f"{ui.pages}/v2/artifacts/artifact/{summary}", "people run 1", "█", "South America")
        page.picture(tmp_path / "summary.png")
        page.open(f"{ui.pages}/v2/runs/flow-run/{failed['id']}", "Failed")
        page.press("Details")
        page.expect("there is no topic orders")
        page.picture(tmp_path / "failed.png")
        page.open(f"{ui.pages}/v2/runs/flow-run/{running}", "source · id,name,continent", "Running")
        page.picture(tmp_path / "running.png")
        deployment = history.get("/deployments/name/sort-topic/on-demand")["id"]
        page.open(f"{ui.pages}/v2/deployments/deployment/{deployment}/run", "Source topic", "Topic to read.", "Sorts")
        page.picture(tmp_path / "prefect-form.png")
        page.open(f"{ui.pages}/v2/runs", done["name"])
        page.picture(tmp_path / "runs.png")
    history.cancel(running)
    if PICTURES:
        for picture in tmp_path.glob("prefect-*.png"):
            shutil.copy(picture, PICTURES)


def test_ctrl_c_ends_all(ui: Ui) -> None:
    """One SIGINT ends it with status 0, and nothing of it is left."""
    processes = psutil.Process(ui.process.pid).children(recursive=True)
    assert len(processes) >= 4
    ui.process.send_signal(signal.SIGINT)
    assert ui.process.wait(90) == 0
    _, alive = psutil.wait_procs(processes, 30)
    assert not alive
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{ui.pages}/api/health", timeout=5)
