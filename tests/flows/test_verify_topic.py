"""The command `kafka-sort verify`: it exits with status 3 only if something differs."""

import pytest

from tests.cluster import Cluster, Record, sample_values
from tests.command import Command


@pytest.mark.raises("VerificationError")
def test_a_difference_has_a_status_of_its_own(cluster: Cluster, command: Command) -> None:
    """A sound run is 0; a foreign record in an output is 3, with the place in the line."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(100))
    assert command.run(job).status == 0
    assert command.run(job, command="verify").status == 0
    output = job.sort_list[1].topic
    cluster.produce_records(output, [Record(b"1,a,b,Asia", partition=2)])
    outcome = command.run(job, command="verify")
    assert outcome.status == 3, outcome.err
    assert output in outcome.err.splitlines()[-1]
