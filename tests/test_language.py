"""The language rules that a program can check: how docstrings begin, and words for which the field has others."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("tasks", "flows", "kafka_sort")
FILES = sorted(path for folder in (*PRODUCT, "tests", "bench") for path in (ROOT / folder).rglob("*.py"))
# A clause that begins so needs the name beside it: the first line has to stand alone.
BARE = re.compile(r"(Who|Whose|Whom|What|Where|When|Which|Of|As|By|In|Likewise|That|Also)\b")
# A process is "it"; the field says again, recreate and retry.
WORDS = re.compile(r"\b(he|him|his|anew|(made|tried) again)\b", re.IGNORECASE)

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented(path: Path) -> Iterator[tuple[Documented, str]]:
    """Yield each part of a file that may have a docstring, with that or an empty text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Documented):
            yield node, ast.get_docstring(node) or ""


def comments(path: Path) -> Iterator[str]:
    """Yield the comments of a file."""
    with path.open("rb") as file:
        yield from (token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT)


def name_of(node: Documented) -> str:
    """Return where the docstring is: the name of a class or function with its line, or the module."""
    return "module" if isinstance(node, ast.Module) else f"{node.name}, line {node.lineno}"


@pytest.mark.parametrize("text", ["Of a part's file.", "What a run reads.", "Likewise of the other."])
def test_a_bare_clause_is_recognized(text: str) -> None:
    """A docstring that needs the name beside it is one; "Whether" and words that only begin alike are not."""
    assert BARE.match(text)
    assert not BARE.match(f"Whether {text}")
    assert not BARE.match("Offsets of a partition.")


def test_docstrings_stand_alone() -> None:
    """A docstring of the product says in its first line what the thing does or is."""
    files = (path for path in FILES if path.relative_to(ROOT).parts[0] in PRODUCT)
    assert not [
        f"{path}: {name_of(node)}: {doc}" for path in files for node, doc in documented(path) if BARE.match(doc)
    ]


def test_words() -> None:
    """Comments and docstrings use the field's words, and "it" for a process."""
    for path in FILES:
        texts = (*comments(path), *(doc for _, doc in documented(path)))
        assert not [text for text in texts if WORDS.search(text)], path


def test_every_test_has_a_promise() -> None:
    """Each test's docstring says what it proves."""
    tests = (path for path in FILES if path.name.startswith("test_"))
    found = ((path, node, doc) for path in tests for node, doc in documented(path) if not isinstance(node, ast.Module))
    assert not [f"{path}: {name_of(node)}" for path, node, doc in found if node.name.startswith("test_") and not doc]
