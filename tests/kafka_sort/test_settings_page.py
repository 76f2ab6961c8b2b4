"""docs/settings.md has each setting of a job and of a stream, with its flag and its default."""

import re
from pathlib import Path

import pytest

from kafka_sort.main import cli
from tasks.settings.job import Job, load_job
from tasks.settings.streaming import Streaming
from tests.documents import blocks_of, text_of

PAGE = "docs/settings.md"
SETTINGS = re.findall(r"^\| `(--[a-z-]+)` \| `([a-z_]+)` \| (.*?) \| (.*) \|$", text_of(PAGE), re.MULTILINE)
# What None stands for, where the word is no default of the model.
MEANS_NONE = {
    "none",
    "the source topic's name",
    "no limit",
    "`earliest`",
    "`now`",
    "the source's",
    "the broker's",
    "`<source>-dead-letters`",
    "`id:int,name,address,continent`",
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


def test_job_file(tmp_path: Path) -> None:
    """The example of a job file is one."""
    file = tmp_path / "job.toml"
    file.write_text(next(block for block in blocks_of(PAGE) if "source-topic" in block))
    job = load_job({}, {}, file)
    assert [sort.topic for sort in job.sort_list] == ["orders-sorted", "orders-by-country"]
