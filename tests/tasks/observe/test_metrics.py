"""Metrics of runs: what they count, and how they leave the process."""

import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import structlog
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tasks.errors import (
    BrokerUnavailableError,
    CancelledError,
    KafkaSortError,
    RunTimeoutError,
    SettingsError,
    SourceLostError,
    StoppedError,
    TransientError,
)
from tasks.kafka.lease import LeaseTakenError
from tasks.observe.export import FILE, GATEWAY, PORT, export_metrics, measure_run
from tasks.observe.metrics import CATEGORIES, OUTCOMES, RunMetrics, current_metrics
from tasks.publish import SupersededError
from tasks.run_context import Stop
from tasks.run_record import ReadRange, RunRecord
from tests.cluster import Cluster, sample_values
from tests.command import Command
from tests.documents import text_of

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    return {
        (s.name.removeprefix("kafka_sort_"), frozenset((k, v) for k, v in s.labels.items() if v)): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset({"job": "j", **labels}.items())))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kafka-sort.prom"
    monkeypatch.setenv(FILE, str(path))
    return path


def run(job: str = "j", error: BaseException | None = None, stop: Stop | None = None) -> None:
    """Make a run of ten records from one partition, which succeeds or ends with the error."""
    with export_metrics(job) as metrics, measure_run(stop or Stop()):
        metrics.note_lag({0: 10})
        metrics.observe_stage("dump", 0.5)
        current_metrics().count("dump", 10, 500, partition=0)
        if error is not None:
            raise error


def test_counters_go_on_where_the_last_process_ended(file: Path) -> None:
    """Counters and histograms of separate runs add up: a batch run begins at zero, and Prometheus needs growth."""
    run()
    run()
    samples = parse(file.read_text())
    assert value(samples, "records_total", stage="dump", partition="0") == 20
    assert value(samples, "bytes_total", stage="dump", partition="0") == 1000
    assert value(samples, "runs_total", outcome="completed") == 2
    assert value(samples, "stage_duration_seconds_count", stage="dump") == 2
    assert value(samples, "stage_duration_seconds_bucket", stage="dump", le="+Inf") == 2
    assert value(samples, "lag_offsets", partition="0") == 10


def test_failed_run_keeps_the_last_success(file: Path) -> None:
    """The alert for "no success for hours" looks at a time that a failed run must not erase, nor move."""
    run()
    before = value(parse(file.read_text()), "last_success_timestamp_seconds")
    with pytest.raises(SettingsError):
        run(error=SettingsError("wrong"))
    samples = parse(file.read_text())
    assert before is not None
    assert value(samples, "last_success_timestamp_seconds") == before
    assert (value(samples, "last_failure_timestamp_seconds") or 0) > before
    assert value(samples, "runs_total", outcome="failed") == 1
    assert value(samples, "errors_total", category="settings") == 1


def test_jobs_share_a_file(file: Path) -> None:
    """The lines of another job in the file stay as they are."""
    run("other")
    other = {key: value for key, value in parse(file.read_text()).items() if ("job", "other") in key[1]}
    run()
    assert other
    assert other.items() <= parse(file.read_text()).items()


@pytest.mark.parametrize(
    ("error", "outcome", "category"),
    [
        (TransientError("t"), "failed", "transient"),
        (BrokerUnavailableError("b"), "failed", "transient"),
        (SourceLostError("s", ()), "failed", "terminal"),
        (SettingsError("s"), "failed", "settings"),
        (ValueError("v"), "failed", "unexpected"),
        (RunTimeoutError(1), "failed", "terminal"),
        (StoppedError(), "stopped", None),
        (CancelledError(), "stopped", None),
        (KeyboardInterrupt(), "stopped", None),
        (LeaseTakenError("j", "somebody"), "refused", None),
        (SupersededError("s"), "refused", None),
    ],
)
def test_outcomes(file: Path, error: BaseException, outcome: str, category: str | None) -> None:
    """A failed run is told from a stopped one, and from one that another made needless: no false alarm."""
    with pytest.raises(type(error)):
        run(error=error)
    samples = parse(file.read_text())
    assert {o: value(samples, "runs_total", outcome=o) for o in OUTCOMES} == {o: float(o == outcome) for o in OUTCOMES}
    assert {c: value(samples, "errors_total", category=c) for c in CATEGORIES} == {
        c: float(c == category) for c in CATEGORIES
    }
    assert (value(samples, "last_failure_timestamp_seconds") is None) == (category is None)


def test_an_idle_stream_is_a_success(file: Path) -> None:
    """Nothing to read for hours is no alert: it counts that the stream checked and had read it all."""
    with export_metrics("j") as metrics:
        metrics.note_look({0: 0, 1: 3})
        assert value(parse(generate_latest(metrics.registry).decode()), "last_success_timestamp_seconds") is None
        metrics.note_look({0: 0, 1: 0})
    assert value(parse(file.read_text()), "last_success_timestamp_seconds") is not None


def test_a_replacement_counts_what_is_new(file: Path) -> None:
    """Dead letters that were there before are not counted again, and the lag is what the run leaves behind."""
    with export_metrics("j") as metrics:
        metrics.note_lag({0: 5, 1: 0})
        record = RunRecord("j", 2, "a", "s", "i", {}, (ReadRange(0, 0, 90),), (), 90, "d", 7, {}, (), "", "")
        metrics.count_committed(replace(record, dead_letters_written=2), 1000, {0: 3})
    samples = parse(file.read_text())
    assert value(samples, "dead_letters_total") == 2
    assert (value(samples, "lag_offsets", partition="0"), value(samples, "lag_offsets", partition="1")) == (3, 0)


def test_stopped_between_two_attempts(file: Path) -> None:
    """A task without a retry, because somebody stopped the run, is no failure."""
    stop = Stop()
    stop.ask(StoppedError("SIGTERM"))
    with pytest.raises(TransientError):
        run(error=TransientError("t"), stop=stop)
    assert value(parse(file.read_text()), "runs_total", outcome="stopped") == 1


def subclasses(kind: type[KafkaSortError]) -> Iterator[type[KafkaSortError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from subclasses(each)


def test_every_error_has_a_category() -> None:
    """No class of error makes a series of its own."""
    assert {kind.category for kind in subclasses(KafkaSortError)} <= {*CATEGORIES, *OUTCOMES}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_served_while_the_run_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port in the settings answers with the run's metrics as they are, and is free again at its end."""
    port = free_port()
    monkeypatch.setenv(PORT, str(port))
    with export_metrics("j") as metrics:
        metrics.count("dump", 7, 70, partition=3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            samples = parse(answer.read().decode())
    assert value(samples, "records_total", stage="dump", partition="3") == 7
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("setting", [PORT, GATEWAY, FILE])
def test_export_that_fails_is_a_warning(setting: str, busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port in use, a gateway that is not there or a folder that is missing ends no run, and hides no error."""
    monkeypatch.setenv(
        setting, {PORT: str(busy), GATEWAY: f"127.0.0.1:{free_port()}", FILE: "/nowhere/x.prom"}[setting]
    )
    with structlog.testing.capture_logs() as lines:
        run()
        with pytest.raises(SettingsError):
            run(error=SettingsError("the run's own"))
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [(line["event"], line["setting"]) for line in warnings] == [("metrics could not be exported", setting)] * 2


@pytest.mark.parametrize("setting", [PORT, GATEWAY])
def test_settings_of_exports_are_not_logged(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address may hold a password: the warning about it does not."""
    monkeypatch.setenv(setting, "http://user:hunter2@127.0.0.1")
    with structlog.testing.capture_logs() as lines:
        run()
    assert "could not be exported" in str(lines)
    assert "hunter2" not in str(lines)


class Gateway(BaseHTTPRequestHandler):
    """A gateway that keeps the last push, as its own exposition would show it."""

    pushes: list[tuple[str, str, str]]

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        # Go writes bounds and empty labels this way.
        text = self.pushes[-1][2] if self.pushes else ""
        self.wfile.write(text.replace('le="1.0"', 'le="1"').replace('job="j"', 'instance="",job="j"').encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.pushes.append(("POST", self.path, body))
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_pushed_to_the_jobs_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are sent at the run's end, whatever that is, by POST: those that this run did not set stay."""
    Gateway.pushes = []
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(GATEWAY, f"127.0.0.1:{server.server_port}")
    try:
        run()
        with pytest.raises(ValueError, match="bug"):
            run(error=ValueError("bug"))
    finally:
        server.shutdown()
        server.server_close()
    assert [(method, path) for method, path, _ in Gateway.pushes] == [("POST", "/metrics/job/j")] * 2
    samples = parse(Gateway.pushes[-1][2])
    assert value(samples, "records_total", stage="dump", partition="0") == 20
    buckets = [key for key in samples if key[0] == "stage_duration_seconds_bucket"]
    assert len(buckets) == len(set(buckets)) == Gateway.pushes[0][2].count("stage_duration_seconds_bucket{")
    assert value(samples, "stage_duration_seconds_bucket", stage="dump", le="1.0") == 2


def test_a_run_counts_what_it_did(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """Records by partition and sort, bytes, dead letters, retries, lag and durations are those of a real run."""
    source = cluster.make_topic()
    values = sample_values(400)
    cluster.produce(source, [*values, b"no row"])
    job = command.job(source, job_name="j", max_records=300)
    path = tmp_path / "m.prom"
    done = command.run(job, failpoint="before-sort=raise", environment={FILE: str(path)})
    assert done.status == 0, done.err
    samples = parse(path.read_text())
    record = cluster.ledger(job).last
    assert record is not None
    rows = cluster.read(job.sort_list[0].topic)
    dumped = [value(samples, "records_total", stage="dump", partition=str(p)) or 0 for p in range(4)]
    assert sum(dumped) == len(rows) == record.records - record.dead_letters
    assert sum(value(samples, "bytes_total", stage="dump", partition=str(p)) or 0 for p in range(4)) == sum(
        len(r.value or b"") for r in rows
    )
    for sort in job.sort_list:
        for stage in ("sort", "publish"):
            assert value(samples, "records_total", stage=stage, sort=sort.topic) == len(rows)
            assert value(samples, "bytes_total", stage=stage, sort=sort.topic) == sum(len(r.value or b"") for r in rows)
    assert value(samples, "dead_letters_total") == record.dead_letters
    assert value(samples, "task_retries_total", task="sort_records") == 1
    assert value(samples, "errors_total", category="transient") == 1
    assert value(samples, "runs_total", outcome="completed") == 1
    assert sum(value(samples, "lag_offsets", partition=str(p)) or 0 for p in range(4)) == 401 - 300
    for stage in ("dump", "sort", "publish"):
        assert value(samples, "stage_duration_seconds_count", stage=stage) == 1


def test_the_page_lists_the_metrics() -> None:
    """The table in docs/operations.md has each metric with its type and labels, and no other."""
    rows = re.findall(r"^\| `(kafka_sort_\w+)` \| (\w+) \| (.*?) \|", text_of("docs/operations.md"), re.MULTILINE)
    registry = RunMetrics("j").registry
    expected = []
    for metric in registry.collect():
        labels = registry._names_to_collectors[metric.name]._labelnames  # type: ignore[attr-defined]
        name = metric.name + ("_total" if metric.type == "counter" else "")
        expected.append((name, metric.type, ", ".join(f"`{label}`" for label in labels)))
    assert rows == expected
