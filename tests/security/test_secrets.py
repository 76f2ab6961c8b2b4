"""A password is in none of the traces that a run leaves."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.sort_topic import sort_topic
from tests.cluster import assert_sorted
from tests.security.secure import PASSWORD, Secure, Sorter, all_of


def traces(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Read all files in the folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def holders(folder: Path, text: str) -> list[Path]:
    return [path for path, content in traces(folder) if text.encode() in content]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_run_leaves_no_secret(secure: Secure, sorter: Sorter, source: str) -> None:
    """Runs that go well, fail or are refused, with --debug, leave it in no output, no file, and nothing in Prefect.

    Prefect's database is searched as bytes: parameters, logs, states, artifacts, task runs, all in one.
    """
    job = sorter.prepare()
    flags, wrong = sorter.flags(), f"{PASSWORD}-wrong"
    environment = {}
    if source == "environment":
        flags = sorter.flags(sasl_password="")
        environment = {"KAFKA_SASL_PASSWORD": PASSWORD}
    with secure.granted(all_of(job)):
        # The run is stopped midway, to search the process and its files.
        running = sorter.start(job, *flags, "--debug", failpoint="after-sort=stop", environment=environment)
        running.wait_until_stopped()
        assert any(content for _, content in traces(sorter.workdir))
        assert holders(sorter.workdir, PASSWORD) == []
        modes = {path: path.stat().st_mode & 0o777 for path in sorter.workdir.rglob("*")}
        assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
        assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
        assert PASSWORD not in Path(f"/proc/{running.process.pid}/cmdline").read_text()
        outcomes = [running.finish_awake()]
        secure.cluster.produce(job.source_topic, [b"1,a,b,Asia"])
        debug = (*flags, "--debug")
        failing = sorter.start(job, *debug, "--retries", "0", failpoint="after-begin=raise", environment=environment)
        outcomes.append(failing.finish())
        outcomes.append(sorter.run(job, *sorter.flags(sasl_password=wrong), "--debug"))
        outcomes.append(sorter.run(job, *sorter.flags(ssl_key_pem=PASSWORD), "--debug"))
        outcomes.append(sorter.run(job, *debug, command="verify", environment=environment))
    assert [outcome.status for outcome in outcomes] == [0, 1, 2, 2, 0], outcomes
    assert "Traceback" in outcomes[1].err
    for outcome in outcomes:
        assert PASSWORD not in outcome.out + outcome.err
    assert holders(sorter.workdir, PASSWORD) == []
    home = Path(os.environ["PREFECT_HOME"])
    # The search works: it finds the job in the database, and the traceback of the failed run.
    assert holders(home, job.sort_list[0].topic)
    assert holders(home, "failpoint after-begin")
    assert holders(home, PASSWORD) == []


@pytest.mark.slow
def test_a_secret_block(secure: Secure, sorter: Sorter, prefect_server: str) -> None:
    """A run names a profile; the block's content is in Prefect's database only as a cipher."""
    name = f"p-{uuid4().hex[:8]}"
    job = sorter.prepare()
    with temporary_settings({PREFECT_API_URL: prefect_server}), secure.granted(all_of(job)):
        block: Secret[str] = Secret(value=secure.kafka_file().read_text())
        assert PASSWORD not in repr(block)
        block.save(f"kafka-sort-{name}")
        sort_topic(job, name)
    assert_sorted(secure.cluster, job)
    home = Path(os.environ["PREFECT_HOME"])
    assert holders(home, name)
    assert holders(home, PASSWORD) == []
