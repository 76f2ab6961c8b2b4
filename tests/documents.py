"""The documents as tests read them: pages, their code, their links and anchors, and their tables."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

_FENCE = re.compile(r"^```[a-z]*\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks_of(page: str) -> list[str]:
    """Code between fences."""
    return _FENCE.findall(text_of(page))


def code_of(page: str) -> list[str]:
    """All code, in blocks and in lines. Prose also says "make" and "kafka-sort"."""
    return blocks_of(page) + re.findall(r"`([^`\n]+)`", _prose(page))


def links_of(page: str) -> list[tuple[str, str]]:
    """Targets within the project: a page, or a file, as its path from the root; and the anchor, which may be empty."""
    found = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", _prose(page))
    return [(_from_root(page, path), anchor) for path, anchor in found if "://" not in path]


def anchors_of(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def members_of(command: str) -> dict[str, str]:
    """Return the members of a command's object on docs/output.md, each with what it holds."""
    section = text_of("docs/output.md").partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", section, re.MULTILINE))


def names_of(facts: Any, opaque: Collection[str] = (), path: str = "") -> set[str]:
    """Return the names of an object and of those within, each with its path; `opaque`: not those within these."""
    if isinstance(facts, list):
        return set().union(*(names_of(item, opaque, path) for item in facts))
    if not isinstance(facts, dict) or path in opaque:
        return set()
    names = {f"{path}.{name}".lstrip("."): value for name, value in facts.items()}
    return names.keys() | set().union(*(names_of(value, opaque, name) for name, value in names.items()))


def assert_documented(command: str, facts: Mapping[str, Any]) -> None:
    """Compare an object with the page: each member is there, and the other way round."""
    members = members_of(command)
    maps = [name for name, text in members.items() if "→" in text]
    loose = [name for name in members if not any(other.startswith(f"{name}.") for other in members)]
    assert names_of(dict(facts), {*maps, *loose}) == members.keys()


def _prose(page: str) -> str:
    return _FENCE.sub("", text_of(page))


def _from_root(page: str, path: str) -> str:
    target = (ROOT / page).parent / path if path else ROOT / page
    return target.resolve().relative_to(ROOT).as_posix()
