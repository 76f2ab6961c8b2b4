"""docs/recipes.md: each recipe's command sorts its topic as the page says, and verification agrees."""

import re
import shlex
from uuid import uuid4

import pytest

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
_LINE = re.compile(r"(?:\[(?P<headers>[^\]=]+=[^\]]*)\] )?(?:(?P<key>.+?) →)? ?(?P<value>.*)")
RECIPES = [match.groupdict() for match in _RECIPE.finditer(text_of("docs/recipes.md"))]


def read_record(line: str) -> Record:
    """Read a line of the page: `[name=value …] KEY → VALUE`."""
    match = _LINE.fullmatch(line)
    assert match, line
    value = match["value"].replace("\\n", "\n").encode()
    pairs = [pair.partition("=") for pair in (match["headers"] or "").split()]
    headers = tuple((name, text.encode()) for name, _, text in pairs)
    return Record(value or None, match["key"].encode() if match["key"] else None, headers)


def test_all_recipes_are_found() -> None:
    """Each heading is a recipe with a topic before and after."""
    assert len(RECIPES) == len(re.findall("^## ", text_of("docs/recipes.md"), re.MULTILINE))


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
