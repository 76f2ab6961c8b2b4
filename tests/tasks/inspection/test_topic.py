"""Inspections of topics of all kinds: the format that is told, the job that is proposed, and what is read for it."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.inspection.reading import GROUP
from tasks.inspection.topic import Inspection, inspect_topic
from tasks.settings.job import Job, load_job
from tests.cluster import Cluster
from tests.inspected import CASES, Case
from tests.registry_server import Registry, serve_registry
from tests.stages import run_once


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve_registry() as running:
        yield running


def inspect(cluster: Cluster, case: Case, registry: Registry) -> Inspection:
    topic = cluster.make_topic(2, **case.topic)
    cluster.produce_records(topic, case.make(registry))
    address = registry.address if case.has_registry else None
    return inspect_topic(cluster.connection, cluster.admin, topic, address)


def load(found: Inspection, tmp_path: Path) -> Job:
    """Load its job file, as --job does."""
    file = tmp_path / "job.toml"
    file.write_text(found.job_file)
    return load_job({"workdir": tmp_path / "work"}, {}, file)


def assert_proposed(found: Inspection, case: Case, registry: Registry) -> None:
    """Check the settings of the job file, with the term of its sort; its output is not there yet."""
    source = found.sample.topic.name
    settings = tomllib.loads(found.job_file)
    ((term, _, output),) = (sort.rpartition("=") for sort in settings.pop("sorts"))
    assert term == case.sort
    assert output.startswith(f"{source}-by-")
    own = {"source_topic": source, **({"schema_registry": registry.address} if case.has_registry else {})}
    assert {key.replace("-", "_"): value for key, value in settings.items()} == own | case.settings


QUICK = ("csv with a heading", "json", "avro", "compacted, with tombstones", "mixed")


@pytest.mark.parametrize("name", QUICK)
def test_a_job_is_proposed(cluster: Cluster, registry: Registry, name: str) -> None:
    """The job file has the format, the columns with their types, and the likeliest sort."""
    assert_proposed(inspect(cluster, CASES[name], registry), CASES[name], registry)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_job_runs_as_it_is(cluster: Cluster, tmp_path: Path, registry: Registry, name: str) -> None:
    """A run of the proposed job places each record that is no dead letter; the inspection had left no trace."""
    case = CASES[name]
    before = set(cluster.admin.list_topics(timeout=10).topics)
    found = inspect(cluster, case, registry)
    topics = set(cluster.admin.list_topics(timeout=10).topics)
    # Kafka makes a topic of its own for the first question about a group.
    assert topics - before - {"__consumer_offsets"} == {found.sample.topic.name}
    groups = cluster.admin.list_consumer_groups().result().valid
    assert not [group for group in groups if group.group_id == GROUP]
    assert_proposed(found, case, registry)
    record = run_once(cluster, load(found, tmp_path), tmp_path)
    assert record.records == found.count
    assert record.dead_letters == case.dead_letters
