"""A survey holds a bounded number of bytes, whatever the records are like."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from tasks import survey
from tasks.placement import place_outputs
from tasks.snapshot import take_snapshot
from tests.cluster import Cluster
from tests.stages import make_job, owned


def test_records_that_are_larger_than_their_mean(cluster: Cluster, tmp_path: Path) -> None:
    """It ends once it has as many bytes as it may hold, with what it has read of its windows by then."""
    source = cluster.make_topic()
    cluster.produce(source, [b"%d,name,%s,Asia" % (i, b"a" * 5000) for i in range(800)])
    job = make_job(source, tmp_path)
    with owned(cluster, job) as owner:
        # A run whose files are written again has no mean.
        snapshot = replace(take_snapshot(owner), mean_record_bytes=0.0)
        placements = place_outputs(job, [4])
        whole = survey.take_survey(owner, snapshot, placements)
        with patch.object(survey, "_MOST_BYTES", 600_000):
            bounded = survey.take_survey(owner, snapshot, placements)
    assert (whole.records, whole.offsets) == (800, 800)
    # Records come a hundred at a time.
    assert 600_000 <= bounded.record_bytes <= 600_000 + 100 * 5100
    assert bounded.records == bounded.offsets == len(bounded.rows) == len(bounded.weights)
