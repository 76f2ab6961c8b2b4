"""Permissions: the table in docs/security.md is enough, and each line of it is needed."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, NewPartitions, ResourceType

from kafka_sort import SortedTopic
from kafka_sort.status import read_status
from tasks.settings.connection import resolve_connection
from tests.cluster import assert_sorted, sample_values, wait_for
from tests.command import Outcome
from tests.security.secure import Grant, Secure, Sorter, all_of, all_to_read, rows_of


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status == 2, outcome.out + outcome.err
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith("kafka-sort: ")
    for word in words:
        assert word in last, last


@pytest.mark.slow
def test_the_table_is_enough(secure: Secure, sorter: Sorter) -> None:
    """A whole run, its verification and the status, by a password from a file, with dead letters; a second run too."""
    job = sorter.prepare()
    flags = sorter.flags()
    with secure.granted(all_of(job)):
        outcome = sorter.run(job, *flags)
        assert outcome.status == 0, outcome.err
        secure.cluster.produce(job.source_topic, [b"1,a,b,Asia"])
        verified = sorter.run(job, *flags, command="verify")
        assert verified.status == 0, verified.err
        connection = resolve_connection(None, Path(flags[-1]), (), {})
        status = next(found for found in read_status(connection) if found.job == job.name)
    assert (status.state, status.problem, status.lag) == ("idle", "", 1)
    assert_sorted(secure.cluster, job)


@pytest.mark.slow
def test_a_reader_needs_no_group(secure: Secure, sorter: Sorter) -> None:
    """The reader's table is enough for `get`, `read` and `SortedTopic`, over two runs; without the index as well."""
    job = sorter.prepare(9000)
    assert sorter.run(job).status == 0
    secure.cluster.produce(job.source_topic, [*sample_values(50, seed=2), b"7,a,b,Asia"])
    assert sorter.run(job).status == 0
    assert secure.cluster.ends(job.index) != {0: 0}
    output = job.sort_list[0].topic
    values = sorted((r.value or b"" for r in secure.cluster.read(output)), key=lambda v: int(v.split(b",")[0]))
    _, servers, _, file = sorter.flags()
    flags = ("--job-name", job.name, *sorter.flags(), "--sort", output, "--output", "raw")
    needed = [grant for grant in all_to_read(job) if grant.name in {output, job.ledger, job.index}]
    assert [grant.name for grant in needed] == [output, job.ledger, job.index]
    for granted in (needed, needed[:2]):
        with secure.granted(granted):
            found = sorter.start_flags("get", *flags, "7").finish()
            assert (found.status, found.out.encode()) == (0, b"7,a,b,Asia\n"), found.err
            shown = sorter.start_flags("read", *flags, "--from", "7").finish()
            assert (shown.status, shown.out.encode().splitlines()) == (0, values[values.index(b"7,a,b,Asia") :])
            with SortedTopic(job.name, output, bootstrap_servers=servers, kafka_config=Path(file)) as topic:
                assert sorted(record.value or b"" for record in topic) == sorted(values)


@pytest.mark.slow
def test_each_permission_to_read_is_named(secure: Secure, sorter: Sorter) -> None:
    """Without Read on the output or the ledger nothing is shown, and the line names it; Describe is not enough."""
    job = sorter.prepare(20)
    assert sorter.run(job).status == 0
    output = job.sort_list[0].topic
    needed = [grant for grant in all_to_read(job) if grant.name in {output, job.ledger}]
    assert len(needed) == 2
    flags = ("--job-name", job.name, *sorter.flags(), "--sort", output)
    key = (secure.cluster.read(output)[10].value or b"").split(b",")[0].decode()
    for dropped in needed:
        less = replace(dropped, operation=AclOperation.DESCRIBE)
        for granted in ([], [less]):
            with secure.granted([*(grant for grant in needed if grant != dropped), *granted]):
                for command in (("read",), ("get", key)):
                    outcome = sorter.start_flags(*command, *flags).finish()
                    refused(outcome, dropped.name, "Read" if granted else "")
                    assert outcome.out == ""


@pytest.mark.slow
def test_a_merge_deletes(secure: Secure, sorter: Sorter) -> None:
    """Read and Delete on the outputs are named before any work; the ledger first, as it has the job."""
    job = sorter.prepare(20)
    flags = sorter.flags()
    with secure.granted(all_of(job, verify=False)):
        for seed in (1, 2):
            secure.cluster.produce(job.source_topic, sample_values(20, seed=seed))
            assert sorter.run(job, *flags).status == 0
        outputs = [sort.topic for sort in job.sort_list]
        refused(sorter.run(job, *flags, command="merge"), *(f"Delete, Read on topic {name}" for name in outputs))
        assert secure.cluster.count(job) == 60 * len(outputs)
        more = [Grant("", ResourceType.TOPIC, n, o) for n in outputs for o in (AclOperation.READ, AclOperation.DELETE)]
        with secure.granted(more):
            merged = sorter.run(job, *flags, command="merge")
    assert merged.status == 0, merged.err
    refused(sorter.run(job, *flags, command="merge"), "Read", job.ledger)


ROWS = [(row, operation) for row, needed, _ in rows_of() for operation in needed]
READERS = [(row, operation) for row, _, verified in rows_of() for operation in verified]


def named(dropped: Grant) -> tuple[str, str]:
    """Return it as the line must name it."""
    return dropped.operation.name.title().replace("_", ""), dropped.name


@pytest.mark.slow
@pytest.mark.parametrize(("row", "operation"), ROWS)
def test_each_missing_permission_is_named(secure: Secure, sorter: Sorter, row: str, operation: str) -> None:
    """If one is missing nothing is done, and the line names operation and resource; with it the run is made."""
    job = sorter.prepare(20)
    dropped = next(g for g in all_of(job, verify=False) if g.row == row and g.operation.name == operation)
    flags = sorter.flags()
    with secure.granted(grant for grant in all_of(job, verify=False) if grant != dropped):
        refused(sorter.run(job, *flags), *named(dropped))
        assert secure.cluster.count(job, committed=False) == 0
        with secure.granted([dropped]):
            outcome = sorter.run(job, *flags)
    assert outcome.status == 0, outcome.err
    assert_sorted(secure.cluster, job)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "operation"), READERS)
def test_each_permission_to_verify_is_named(secure: Secure, sorter: Sorter, row: str, operation: str) -> None:
    """If one that verification needs is missing, the line names it."""
    job = sorter.prepare(20)
    assert sorter.run(job).status == 0
    needed = all_of(job, verify=True)
    dropped = next(g for g in needed if g.row == row and g.operation.name == operation)
    flags = sorter.flags()
    with secure.granted(grant for grant in needed if grant != dropped):
        outcome = sorter.run(job, *flags, "--retries", "0", command="verify")
        refused(outcome, *named(dropped))
        with secure.granted([dropped]):
            outcome = sorter.run(job, *flags, command="verify")
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
@pytest.mark.raises("NotPermittedError")
def test_all_that_is_missing_is_named_at_once(sorter: Sorter) -> None:
    """All missing ones are in one line: nobody asks an administrator five times."""
    job = sorter.prepare(20)
    outcome = sorter.run(job, *sorter.flags())
    names = [job.source_topic, *(sort.topic for sort in job.sort_list), job.dead_letters, job.ledger, job.owner_group]
    refused(outcome, *names)


@pytest.mark.slow
def test_making_topics_is_named(secure: Secure, sorter: Sorter) -> None:
    """Topics that do not exist yet need Create, on the cluster or on each."""
    source = secure.cluster.make_topic()
    job = sorter.job(source)
    flags = sorter.flags()
    create = Grant("cluster", ResourceType.BROKER, "kafka-cluster", AclOperation.CREATE)
    with secure.granted(all_of(job)):
        refused(sorter.run(job, *flags), "Create", job.ledger)
        with secure.granted([create]):
            outcome = sorter.run(job, *flags)
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
def test_adding_partitions_is_named(secure: Secure, sorter: Sorter) -> None:
    """Outputs with fewer partitions than the source need Alter by --partition-by source; others do not."""
    job = sorter.prepare(20, partition_by="source")
    flags = sorter.flags()
    with secure.granted(all_of(job)):
        outcome = sorter.run(job, *flags)
        assert outcome.status == 0, outcome.err
        secure.cluster.admin.create_partitions([NewPartitions(job.source_topic, 6)])[job.source_topic].result()
        wait_for(lambda: len(secure.cluster.ends(job.source_topic)) == 6)
        secure.cluster.produce(job.source_topic, sample_values(20, seed=2), partitions=6)
        outputs = [sort.topic for sort in job.sort_list]
        refused(sorter.run(job, *flags), *(f"Alter on topic {name}" for name in outputs))
        with secure.granted(Grant("", ResourceType.TOPIC, name, AclOperation.ALTER) for name in outputs):
            outcome = sorter.run(job, *flags)
    assert outcome.status == 0, outcome.err
    assert_sorted(secure.cluster, job, runs=2)
    assert all(len(secure.cluster.ends(name)) == 6 for name in outputs)


REVOKED = [
    ("after-lease", "transactional id `kafka-sort.<job>`", "WRITE"),
    ("before-dump-chunk", "source topic", "READ"),
    ("after-sort", "outputs", "WRITE"),
    ("after-begin", "outputs", "WRITE"),
    ("before-publish-batch", "outputs", "WRITE"),
    ("before-ledger-record", "topic `kafka-sort.<job>.ledger`", "WRITE"),
    ("before-offsets", "group `kafka-sort.<job>`", "READ"),
    ("before-commit", "transactional id `kafka-sort.<job>`", "WRITE"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "row", "operation"), REVOKED)
def test_revoked_while_it_runs(secure: Secure, sorter: Sorter, point: str, row: str, operation: str) -> None:
    """A permission is revoked during the run: nothing is visible, the line names it; once granted, a start does it."""
    job = sorter.prepare()
    flags = sorter.flags()
    with secure.granted(all_of(job)):
        running = sorter.start(job, *flags, failpoint=f"{point}=stop").wait_until_stopped()
        revoked = next(g for g in all_of(job) if g.row == row and g.operation.name == operation)
        secure.revoke([revoked])
        running.send(signal.SIGCONT)
        outcome = running.finish_awake()
        refused(outcome, *named(revoked))
        assert secure.cluster.count(job) == 0
        secure.grant([revoked])
        again = sorter.run(job, *flags)
        assert again.status == 0, again.err
    assert_sorted(secure.cluster, job)


@pytest.mark.slow
def test_to_inspect_takes_read_on_the_topic(secure: Secure, sorter: Sorter) -> None:
    """An inspection needs Read on its topic and nothing else; without DescribeConfigs it says what it cannot tell."""
    source = secure.cluster.make_topic()
    secure.cluster.produce(source, sample_values(20))
    flags = sorter.flags()
    refused(sorter.start_flags("inspect", *flags, source).finish(), source)
    grant = Grant("source topic", ResourceType.TOPIC, source, AclOperation.READ)
    with secure.granted([grant]):
        outcome = sorter.start_flags("inspect", *flags, source).finish()
    assert outcome.status == 0, outcome.err
    assert 'columns = "c1:int,c2,c3,c4"' in outcome.out
    assert "DescribeConfigs" in outcome.err
