"""All names in the README exist, and have the defaults it says."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from kafka_sort.main import cli
from tasks.formats.csv import CsvFormat
from tasks.settings.job import Job, load_job
from tasks.settings.sorts import parse_columns
from tasks.settings.streaming import Streaming
from tests.csv_values import key_columns

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# Only code counts: prose also says "make" and "kafka-sort".
BLOCKS = re.findall(r"^```[a-z]*\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CODE = BLOCKS + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL))
SETTINGS = re.findall(r"^\| `(--[a-z-]+)` \| `([a-z_]+)` \| (.*?) \| (.*) \|$", README, re.MULTILINE)
# Lines of other programs, with flags of their own. Prefect's are run in tests/test_deployments.py.
OTHERS = re.compile(r"(\.venv/bin/)?(prefect|sort|docker|curl|apt-get) ")
# The words that stand for None, which is no default of the model.
MEANS_NONE = {
    "the source topic's name",
    "no limit",
    "`earliest`",
    "the source's",
    "the broker's",
    "`<source>-dead-letters`",
    "what the broker allows",
    "what the memory limit allows",
}


MODELS = [("sort", Job()), ("stream", Streaming())]
FIELDS = [(command, model, name) for command, model in MODELS for name in type(model).model_fields]


def shown_default(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value}`".replace(str(Path.home()), "~")


@pytest.mark.parametrize(("command", "model", "name"), FIELDS)
def test_every_setting_is_in_the_table(command: str, model: Job | Streaming, name: str) -> None:
    """Each field of a job, and of a stream, is there with its flag and its default."""
    rows = {row[1]: row for row in SETTINGS}
    flag, _, default, _ = rows[name]
    assert flag in flags_of(command, name)
    value = getattr(model, name)
    if value is None:
        assert default in MEANS_NONE
    else:
        assert default == shown_default(value)


def flags_of(command: str, name: str) -> list[str]:
    return next(param.opts for param in cli.commands[command].params if param.name == name)


def test_no_other_settings() -> None:
    """The tables name no setting that a job or a stream has not."""
    assert {row[1] for row in SETTINGS} == {name for _, _, name in FIELDS}


def test_commands_and_flags_exist() -> None:
    """Every `kafka-sort` command and every flag in the README exists."""
    named = {name for code in CODE for name in re.findall(r"(?<![\w/.])kafka-sort ([a-z]+)", code)}
    assert named == set(cli.commands)
    flags = {flag for command in cli.commands.values() for param in command.params for flag in param.opts}
    lines = [line for code in CODE for line in code.splitlines() if not OTHERS.match(line)]
    assert {flag for line in lines for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)} <= flags


def test_make_targets_exist() -> None:
    """Every `make` target in the README exists."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for code in CODE for name in re.findall(r"\bmake ([a-z-]+)", code)}
    assert named
    assert named <= targets


def test_files_exist() -> None:
    """Every link leads to a file of the repository."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)


def test_job_file(tmp_path: Path) -> None:
    """The example of a job file is a valid one."""
    file = tmp_path / "job.toml"
    file.write_text(next(block for block in BLOCKS if "source-topic" in block))
    job = load_job({}, {}, file)
    assert [sort.topic for sort in job.sort_list] == ["orders-sorted", "orders-by-country"]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'1,"a,""b\n",x', (1, b'a,"b\n')),
        (b"1,a,x\n", (1, b"a")),
        (b" 1 ,a,x", (1, b"a")),
        (b"0x1F,a,x", (31, b"a")),
        (b"1,,x", (1, b"")),
    ],
)
def test_rows(value: bytes, key: tuple[int, bytes]) -> None:
    """The README's rows are accepted, and sort by what it says."""
    parsed = CsvFormat(
        parse_columns("id:int,name,place"), key_columns("id:int,name,place", ["id", "name"])
    ).parse_values(pa.array([value]))
    assert tuple(column[0].as_py() for column in parsed.columns.values()) == key
    assert not parsed.rejected
