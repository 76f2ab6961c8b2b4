"""The documents lead a reader on, and name only commands, flags, variables and files that exist."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from kafka_sort.main import cli
from tasks.formats.csv import CsvFormat
from tasks.settings.job import Job
from tasks.settings.sorts import parse_columns
from tasks.settings.streaming import Streaming
from tests.csv_values import key_columns
from tests.documents import PAGES, ROOT, anchors_of, code_of, links_of, text_of

CODE = [code for page in PAGES for code in code_of(page)]
# Lines of other programs, with flags of their own. Prefect's are run in tests/test_deployments.py.
OTHERS = re.compile(r"(\.venv/bin/)?(apt-get|bash|curl|dask|docker|make|prefect|protoc|pytest|python|sort) ")
SOURCES = {
    path: path.read_text()
    for folder in ("tasks", "flows", "kafka_sort", "deploy")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".sh", ".yaml", ".yml"}
} | {ROOT / name: text_of(name) for name in ("docker-compose.yml", "prefect.yaml", "Dockerfile", "Makefile")}


def test_the_readme_is_short() -> None:
    """Its reader is new, and gets to the end."""
    assert len(text_of("README.md").splitlines()) < 200


def test_the_readme_leads_to_every_page() -> None:
    """A page that no link leads to is not found."""
    assert set(PAGES) - {"README.md"} <= {path for path, _ in links_of("README.md")}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Each link within the project is to a file that exists, and to a heading that it has."""
    for path, anchor in links_of(page):
        assert (ROOT / path).exists(), path
        assert not anchor or anchor in anchors_of(path), f"{path}#{anchor}"


@pytest.mark.parametrize("path", SOURCES)
def test_the_code_names_pages_that_exist(path: Path) -> None:
    """Messages and comments name no page that is absent."""
    assert set(re.findall(r"docs/[\w-]+\.md", SOURCES[path])) <= set(PAGES)


def test_commands_and_flags_exist() -> None:
    """Every `kafka-sort` command is there, and every flag that a page names is one of them."""
    named = {name for code in CODE for name in re.findall(r"(?<![\w/.])kafka-sort ([a-z]+)", code)}
    assert named == set(cli.commands)
    flags = {flag for command in cli.commands.values() for param in command.params for flag in param.opts}
    lines = [line for code in CODE for line in code.splitlines() if not OTHERS.match(line.strip())]
    assert {flag for line in lines for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)} <= flags


def test_variables_exist() -> None:
    """Every variable of ours, and every one that has a setting's name, is read somewhere."""
    settings = {f"KAFKA_SORT_{name.upper()}" for model in (Job, Streaming) for name in model.model_fields}
    read = set(re.findall(r"KAFKA_SORT_[A-Z_]*[A-Z]", "\n".join(SOURCES.values())))
    named = {name for code in CODE for name in re.findall(r"KAFKA_SORT_[A-Z_]*[A-Z]", code)}
    assert "KAFKA_SORT_PROFILES" in named
    assert named <= settings | read | {"KAFKA_SORT_PICTURES"}


def test_make_targets_exist() -> None:
    """Every `make` target."""
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = {name for code in CODE for name in re.findall(r"\bmake ([a-z-]+)", code)}
    assert named
    assert named <= targets


def test_the_map_of_the_code_has_each_package() -> None:
    """docs/code.md says of each package of `tasks` what it is."""
    named = re.findall(r"^\| `(tasks/\w+)/` \|", text_of("docs/code.md"), re.MULTILINE)
    assert sorted(named) == sorted(f"tasks/{path.parent.name}" for path in (ROOT / "tasks").glob("*/__init__.py"))


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
    """Rows that docs/formats.md says are accepted, and what they sort by."""
    parsed = CsvFormat(
        parse_columns("id:int,name,place"), key_columns("id:int,name,place", ["id", "name"])
    ).parse_values(pa.array([value]))
    assert tuple(column[0].as_py() for column in parsed.columns.values()) == key
    assert not parsed.rejected
