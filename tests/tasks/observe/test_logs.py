"""Log lines as a collector, a person and Prefect's run log get them."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tasks.errors import SettingsError
from tasks.observe import report
from tasks.observe.logs import FORMAT, LOGGER, configure_logging, get_logger, log_context
from tasks.run_context import Progress
from tests.cluster import Cluster, sample_values
from tests.command import Command


@pytest.fixture
def fresh() -> Iterator[None]:
    """Take away the handlers that other tests, or the caller, gave to the logger."""
    logger = logging.getLogger(LOGGER)
    former, propagate, logger.handlers, logger.propagate = logger.handlers, logger.propagate, [], True
    yield
    logger.handlers, logger.propagate = former, propagate


def test_json_lines(fresh: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line on standard output, once, with UTC time, level, event, and where it comes from."""
    monkeypatch.setenv(FORMAT, "json")
    configure_logging(terminal=True)
    configure_logging()
    with log_context(job="j", run=3, stage="dump", partition=0):
        get_logger().warning("some text\nof two lines", count=7, odd='"€')
    out, err = capsys.readouterr()
    assert err == ""
    line = json.loads(out)
    assert out.count("\n") == 1
    time = datetime.fromisoformat(line.pop("timestamp"))
    assert time.utcoffset() == datetime.now(UTC).utcoffset()
    assert line == {
        "level": "warning",
        "event": "some text\nof two lines",
        "job": "j",
        "run": 3,
        "stage": "dump",
        "partition": 0,
        "count": 7,
        "odd": '"€',
    }


def test_terminal_lines(fresh: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A person gets them on standard error, without escape codes if that is no terminal."""
    configure_logging(terminal=True)
    get_logger().info("dumped", records=7)
    out, err = capsys.readouterr()
    assert out == ""
    assert "dumped" in err
    assert "records=7" in err
    assert "\x1b" not in err


def test_other_formats_are_refused(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt format is reported before any work, not ignored."""
    monkeypatch.setenv(FORMAT, "jsno")
    with pytest.raises(SettingsError, match="use json or console"):
        configure_logging()


class Clock:
    """Time that passes while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.end = 0.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self.now > self.end


def test_progress_is_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """However long a run takes, it logs ten lines in ten minutes, and the artifact moves every two seconds."""
    clock, updates = Clock(), []
    clock.end = 600
    monkeypatch.setattr(report, "time", clock)
    monkeypatch.setattr(report, "stop_if_due", lambda *_: None)
    monkeypatch.setattr(report, "_update_artifact", lambda *_: updates.append(clock.now))
    monkeypatch.setattr(logging.getLogger(LOGGER), "propagate", True)
    configure_logging()
    report._watch(Progress(), "key", None, clock)  # type: ignore[arg-type]
    # Handlers that other tests have left may note a line twice.
    assert len({record.created for record in caplog.records if "progress" in record.getMessage()}) == 10
    assert len(updates) == 300


@pytest.mark.parametrize("flags", [("sort",), pytest.param(("stream", "--max-batches", "1"), marks=pytest.mark.slow)])
def test_a_run_in_json(cluster: Cluster, command: Command, flags: tuple[str, ...]) -> None:
    """Standard output of a run is JSON alone, each line with job and flow run; no password of the connection in it."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(100))
    job = command.job(source)
    secret = ("-X", "sasl.password=hunter2")
    done = command.run(job, *secret, *flags[1:], command=flags[0], environment={FORMAT: "json"})
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    told = next(line for line in lines if line["event"] in {"committed", "streaming"})
    assert told["run"] == 1
    assert told["records"] == 100
    assert {line["job"] for line in lines} == {job.name}
    assert all(UUID(line["flow_run_id"]) for line in lines)
    assert "hunter2" not in done.out + done.err


def test_a_failed_run_in_json(cluster: Cluster, command: Command) -> None:
    """The error that ended a run is a line too, for readers of standard output alone."""
    job = command.job(cluster.make_topic(), start="latest", transaction_timeout=10_000)
    done = command.run(job, environment={FORMAT: "json"})
    assert done.status == 2, done.err
    last = json.loads(done.out.splitlines()[-1])
    assert (last["level"], last["category"], last["job"]) == ("error", "settings", job.name)
    assert "transaction timeout" in last["error"]
    assert last["error"] in done.err
