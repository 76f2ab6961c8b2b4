"""Names that a user gives reach neither SQL nor paths; settings of any shape end in one short line."""

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from prefect.exceptions import ParameterTypeError
from pydantic import ValidationError

from flows.sort_topic import sort_topic
from tasks.errors import SettingsError
from tasks.settings.job import Job, load_job
from tasks.sort import SortRequest, record_columns, sort_chunks
from tests.tasks.test_sort import read_values, write_chunks

HOSTILE = [
    'id"; DROP TABLE x; --',
    "k1 DESC; COPY (SELECT 1) TO '/tmp/x'",
    "') UNION SELECT content FROM read_text('/etc/passwd') --",
    "arrival",
    "value",
    "k0",
    "rowid",
    "*",
    "$files",
    "{job.source_topic}",
    "%s%n",
    "../../etc/passwd",
    "名前",
    "SELECT",
]
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_characters=",:="), min_size=1, max_size=12))
SLOW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(st.lists(NAMES, min_size=2, max_size=2, unique_by=str.strip), st.sampled_from(["", ":desc"]))
def test_column_names_are_only_names(names: list[str], direction: str) -> None:
    """Whatever the names of the columns, a sort by them orders the rows, and does nothing else."""
    first, second = (name.strip() for name in names)
    assume(first.isprintable() and second.isprintable() and first and second)
    assume(not first.startswith("@") and not second.startswith("@"))
    rows = [(2, b"b"), (1, b"c"), (3, b"a"), (1, b"a")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = Job(
            source_topic="s",
            columns=f"{first}:int,{second}",
            sorts=[f"{first}{direction},{second}=o"],
            workdir=folder,
        )
        chunks = write_chunks(job, [rows], folder)
        assert [key.name for key in job.key_columns] == [first, second]
        assert record_columns(job, job.sort_list[0], chunks) == ("value",)
        file = sort_chunks(SortRequest(job, job.sort_list[0], chunks, 2, folder))
        found = read_values(file)
    numbers = [1, 1, 2, 3] if not direction else [3, 2, 1, 1]
    assert [int(value.split(b",")[0]) for value in found] == numbers


@given(st.text(st.characters(codec=None), min_size=1, max_size=8).filter(lambda name: not name.isprintable()))
def test_columns_are_printable(name: str) -> None:
    """Names go into logs, headers and tables: one that could move a cursor, or is no text, is refused."""
    assume(not set(name) & set(",:") and name.strip() == name)
    with pytest.raises(ValidationError):
        Job(columns=f"{name},other", sorts=["other"])


@given(st.one_of(st.text(max_size=20), st.text(alphabet="./\\-_~\0\n a%", max_size=20), st.just("a" * 250)))
@example("..")
@example(".")
@example("../x")
@example("orders\n")
def test_topic_names_are_no_paths(name: str) -> None:
    """A topic or job name is refused, or names one folder in the work folder."""
    for field in ("source_topic", "job_name"):
        try:
            job = Job.model_validate({field: name, "workdir": "/work", "sorts": ["id=out"]})
        except ValidationError:
            continue
        folder = job.local_workdir / job.name
        assert folder.resolve().parent == Path("/work")
        assert folder.name == job.name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*Job.model_fields, "password", "keys"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=5))
@example({"workdir": "/a\0b"})
@example({"workdir": "~nobody-of-that-name/x"})
@example({"memory_limit": "9" * 400})
@example({"start_timeout": float("inf")})
@example({"retry_delay": float("nan")})
@example({"columns": "\ud800", "sorts": ["\ud800"]})
@example({"start": "9999-99-99"})
@example({"columns": "," * 1_000_000})
@example({"sorts": ["x"] * 1_000_000})
@example({"source_topic": "x" * 10_000_000})
@example({"sorts": ["id:" + "desc:" * 100_000]})
def test_parameters_of_any_shape(values: dict[str, Any]) -> None:
    """Parameters as Prefect, a file or a command pass them make a job, or one line of bounded length."""
    try:
        assert isinstance(load_job(values, {}), Job)
    except SettingsError as error:
        line = str(error)
        assert "\n" not in line
        assert len(line) < 500 * max(1, len(values) + 1)


SECRET = "hunter2-77aa"
MALFORMED = {
    "text": "{",
    "a list": [SECRET],
    "a secret in a field that is not": {"sasl.password": SECRET},
    "a secret in a field that is": {"max_records": SECRET},
    "endless": {"columns": SECRET * 100_000},
    "endless lists": {"sorts": [SECRET] * 100_000},
}


@pytest.mark.parametrize("job", MALFORMED.values(), ids=MALFORMED)
def test_malformed_parameters_in_prefect(job: object) -> None:
    """Prefect's message, which it keeps, names the field, and repeats neither a secret nor a megabyte."""
    with pytest.raises(ParameterTypeError, match="job") as raised:
        sort_topic.validate_parameters({"job": job})
    assert len(str(raised.value)) < 500
    assert SECRET not in str(raised.value)
