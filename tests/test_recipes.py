"""docs/recipes.md: each recipe's command sorts its topic as the page says, and verification agrees.

A recipe has a topic before and after, or commands that are run one after the other and end with verification.
"""

import re
import shlex
from pathlib import Path
from uuid import uuid4

import pytest

from tasks.people.make import SCHEMAS
from tasks.settings.job import Job
from tasks.verify import verify_job
from tests.cluster import Cluster, Record
from tests.command import Command
from tests.documents import text_of

_RECIPE = re.compile(
    r"^## (?P<title>.+?)\n.*?^```topic\n(?P<source>.*?)^```\n"
    r".*?^```sh\n(?P<command>.*?)^```\n.*?^```topic\n(?P<sorted>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)
# The file that the commands name may stand in front of them.
_COMMANDS = re.compile(
    r"^## (?P<title>.+?)\n(?:(?!^## ).*\n)*?"
    r"(?:^```file (?P<file>.+)\n(?P<text>(?:(?!^```).*\n)*)^```\n\n)?^```commands\n(?P<commands>(?:.*\n)*?)^```\n",
    re.MULTILINE,
)
_LINE = re.compile(r"(?:\[(?P<headers>[^\]=]+=[^\]]*)\] )?(?:(?P<key>.+?) →)? ?(?P<value>.*)")
RECIPES = [match.groupdict() for match in _RECIPE.finditer(text_of("docs/recipes.md"))]
SEQUENCES = [match.groupdict() for match in _COMMANDS.finditer(text_of("docs/recipes.md"))]


def read_record(line: str) -> Record:
    """Read a line of the page: `[name=value …] KEY → VALUE`."""
    match = _LINE.fullmatch(line)
    assert match, line
    value = match["value"].replace("\\n", "\n").encode()
    pairs = [pair.partition("=") for pair in (match["headers"] or "").split()]
    headers = tuple((name, text.encode()) for name, _, text in pairs)
    return Record(value or None, match["key"].encode() if match["key"] else None, headers)


def test_all_recipes_are_found() -> None:
    """Each heading is a recipe of one of the two kinds."""
    assert len(RECIPES) + len(SEQUENCES) == len(re.findall("^## ", text_of("docs/recipes.md"), re.MULTILINE))


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe["title"] for recipe in RECIPES])
def test_recipe(recipe: dict[str, str], cluster: Cluster, command: Command) -> None:
    """The output holds the records in the order of the page."""
    records = [read_record(line) for line in recipe["source"].splitlines()]
    program, verb, *flags = shlex.split(recipe["command"])
    assert (program, verb) == ("kafka-sort", "sort")
    source = cluster.make_topic(1, name=f"{flags[flags.index('--source-topic') + 1]}-{uuid4().hex[:6]}")
    flags[flags.index("--source-topic") + 1] = source
    cluster.produce_records(source, records)
    done = command.start_flags("sort", "--workdir", str(command.workdir), *flags).finish()
    assert done.status == 0, done.err
    (output,) = (name for name in cluster.admin.list_topics(timeout=10).topics if name.startswith(f"{source}-by-"))
    assert cluster.read(output) == [read_record(line) for line in recipe["sorted"].splitlines()]
    verified = verify_job(Job(source_topic=source), cluster.connection)
    assert verified.ok
    assert not any(run.unverifiable for run in verified.runs)


def renamed(flags: list[str], topic: str, files: dict[str, str]) -> list[str]:
    """Return the flags for another topic, and with files where they are."""
    names = {i + 1 for i, flag in enumerate(flags) if flag in {"--topic", "--source-topic"}}
    return [topic if i in names else files.get(flag, flag) for i, flag in enumerate(flags)]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SEQUENCES, ids=[recipe["title"] for recipe in SEQUENCES])
def test_commands(recipe: dict[str, str], command: Command, tmp_path: Path) -> None:
    """Each command ends well; the last one verifies, and judges the order too."""
    topic = f"people-{uuid4().hex[:6]}"
    lines = [shlex.split(line) for line in recipe["commands"].splitlines()]
    files = {path.name: str(path) for path in SCHEMAS.values()}
    if recipe["file"]:
        path = tmp_path / recipe["file"]
        path.write_text(recipe["text"])
        files[path.name] = str(path)
    first, records = ("load", "3") if recipe["file"] else ("generate", "2,000")
    assert [(program, verb) for program, verb, *_ in lines] == [("kafka-sort", v) for v in (first, "sort", "verify")]
    place = {first: [], "sort": ["--workdir", str(command.workdir)], "verify": []}
    made, done, checked = (
        command.start_flags(verb, *place[verb], *renamed(flags, topic, files)).finish() for _, verb, *flags in lines
    )
    assert made.status == 0, made.err
    assert done.status == 0, done.err
    assert checked.status == 0, checked.err
    assert f"1 run, {records} records read, no difference" in checked.out
    assert "not verifiable:" not in checked.out + checked.err
