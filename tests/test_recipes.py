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
    r"^```topic\n(?P<source>.*?)^```\n.*?^```sh\n(?P<command>.*?)^```\n.*?^```topic\n(?P<sorted>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)
_COMMANDS = re.compile(r"^```commands\n(?P<commands>.*?)^```\n", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^```file ([^\n]+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"(?:\[(?P<headers>[^\]=]+=[^\]]*)\] )?(?:(?P<key>.+?) →)? ?(?P<value>.*)")
# Title → text, of all recipes.
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", text_of("docs/recipes.md"), re.MULTILINE))
RECIPES = {title: match.groupdict() for title, text in SECTIONS.items() if (match := _RECIPE.search(text))}
SEQUENCES = {title: match["commands"] for title, text in SECTIONS.items() if (match := _COMMANDS.search(text))}


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
    assert RECIPES.keys() | SEQUENCES.keys() == SECTIONS.keys()
    assert not RECIPES.keys() & SEQUENCES.keys()


# Every second one runs in `make test`.
@pytest.mark.parametrize(
    "title", [pytest.param(t, marks=pytest.mark.slow if i % 2 else ()) for i, t in enumerate(RECIPES)]
)
def test_recipe(title: str, cluster: Cluster, command: Command) -> None:
    """The output holds the records in the order of the page."""
    recipe = RECIPES[title]
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


def write_files(title: str, folder: Path) -> dict[str, str]:
    """Write the files that a recipe shows; return the path of each, and of the schemas."""
    for name, text in _FILE.findall(SECTIONS[title]):
        (folder / name).write_text(text)
    return {path.name: str(path) for path in (*SCHEMAS.values(), *folder.glob("*.csv"))}


def flags_at(words: list[str], files: dict[str, str], topic: str, suffix: str) -> list[str]:
    """Return the flags with files where they are, and with a topic of its own, after which others are named."""
    return [files.get(word) or re.sub(rf"^{topic}(?=$|-)", topic + suffix, word) for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("title", SEQUENCES)
def test_commands(title: str, command: Command, tmp_path: Path) -> None:
    """Each command ends well; at the end all records are verified, and the order too."""
    lines = [shlex.split(line) for line in SEQUENCES[title].splitlines()]
    topic, suffix = lines[0][lines[0].index("--topic") + 1], f"-{uuid4().hex[:6]}"
    files = write_files(title, tmp_path)
    assert (lines[0][1] in {"generate", "load"}, lines[-1][1]) == (True, "verify")
    for program, verb, *words in lines:
        assert program == "kafka-sort"
        place = ["--workdir", str(command.workdir)] if verb == "sort" else []
        done = command.start_flags(verb, *place, *flags_at(words, files, topic, suffix)).finish()
        assert done.status == 0, done.err
        if verb == "sort":
            assert "nothing new" not in done.out
        if verb == "verify":
            assert re.search(r"runs?, [1-9][\d,]* records read, no difference", done.out)
            assert "not verifiable:" not in done.out + done.err
