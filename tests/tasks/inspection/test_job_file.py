"""The job file of an inspection is TOML, whatever is in the data."""

import tomllib

import pytest

from tasks.inspection.columns import Column
from tasks.inspection.fields import describe_keys, describe_times
from tasks.inspection.guesses import Values
from tasks.inspection.job_file import write_job_file
from tasks.inspection.proposal import Proposal, Seen, propose_job
from tasks.inspection.topic import guess_values
from tests.framed_records import records

TEXTS = ['"', "\\", "a\nb = 1", "\x1b[31m", "\x7f", "'''", "\U0001f600", "\u202e", "# no comment", "]"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back(text: str) -> None:
    """A setting is read as it was written, and a comment is one line that a terminal does not obey."""
    settings = {"columns": text, "csv_header": True, "sorts": [f"{text}=o"]}
    written = write_job_file(Proposal(settings, text, [(text, Column(text, "int", 1, note=text))]), [text])
    assert tomllib.loads(written) == {"columns": text, "csv-header": True, "sorts": [f"{text}=o"]}
    comments = [line for line in written.split("\n") if line.startswith("#")]
    assert len(comments) == 4
    assert all(map(str.isprintable, comments))


def test_a_key_format_that_another_sort_needs() -> None:
    """Where a sort by the key is not proposed, its comment has the setting that it needs besides."""
    sample = records([b"%d,x" % i for i in range(9)], keys=[i.to_bytes(8, "big", signed=True) for i in range(-4, 5)])
    keys = describe_keys(sample, None)
    seen = Seen("source", 9, guess_values(Values(sample), None, "source"), keys, describe_times(sample), 0, 0)
    proposal = propose_job(seen, ["source"])
    assert proposal.term == "c1"
    assert '#   @key  (int, 9 distinct in the sample, with key-format = "int64")' in write_job_file(proposal, [])
