"""The job file of an inspection is TOML, whatever is in the data."""

import tomllib

import pytest

from tasks.inspection.columns import Column
from tasks.inspection.job_file import write_job_file
from tasks.inspection.proposal import Proposal

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
