"""The notation of columns: names and paths such as `customer.id`, `items[0].sku` and `"odd.name".x`.

A text that cannot be read is a ValueError, whose message names it.
"""

import re
from collections.abc import Iterator

# Names of members and indexes of items, from the outside in.
Path = tuple[str | int, ...]

QUOTED = r'"(?:[^"]|"")*"'
_STEP = re.compile(rf'\.?(?:({QUOTED})|([^".\[\]@][^".\[\]]*))|\[([0-9]{{1,9}})\]')
# Within quotes these are letters like any other. A quote in the middle of a word is a letter itself.
_LETTER_QUOTE = r'(?<=[^\s.,:="])"'
_PARTS = {mark: re.compile(rf'(?:{_LETTER_QUOTE}|{QUOTED}|[^"{mark}])*') for mark in ",:="}
_SPECIAL = re.compile(r'[,:=]|^@|^"|(?<=[\s.,:="])"|^\s|\s$|^$')


def split_outside_quotes(text: str, mark: str) -> Iterator[str]:
    """Split at a comma, a colon or an equals sign, except within double quotes; strip blanks around the parts."""
    position, pattern = 0, _PARTS[mark]
    while position <= len(text):
        part = pattern.match(text, position)
        if part is None or text[part.end() : part.end() + 1] not in {"", mark}:
            raise ValueError(f"{text!r} has a double quote without its partner")
        yield part[0].strip()
        position = part.end() + 1


def cut_outside_quotes(text: str, mark: str) -> tuple[str, str]:
    """Cut at the first such mark outside of double quotes; strip blanks around both parts. There may be no second."""
    head = _PARTS[mark].match(text)
    end = head.end() if head else 0
    if text[end : end + 1] not in {"", mark}:
        raise ValueError(f"{text!r} has a double quote without its partner")
    return text[:end].strip(), text[end + 1 :].strip()


def unquote(text: str) -> str:
    """Return the name that `text` is, or is in double quotes."""
    return text[1:-1].replace('""', '"') if re.fullmatch(QUOTED, text) else text


def quote(name: str) -> str:
    """Return the name as it is written among others: in double quotes where something in it would end it."""
    return _quoted(name) if _SPECIAL.search(name) else name


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def parse_path(text: str) -> Path:
    """Read a path of at least one step."""
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        step = _STEP.match(text, position)
        # Between two names there is a dot, and none in front of the first.
        if step is None or (step[3] is None and step[0].startswith(".") != bool(steps)):
            raise ValueError(f'path {text!r}: write it as customer.id, items[0].sku or "odd.name".x')
        steps.append(int(step[3]) if step[3] else unquote(step[1] or step[2]))
        position = step.end()
    if not steps:
        raise ValueError("a path is empty")
    return tuple(steps)


def format_path(path: Path) -> str:
    """Write a path in the one form that `parse_path` reads."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_quote_step(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def _quote_step(name: str) -> str:
    return _quoted(name) if re.search(r'[",:=.\[\]]|^@|^\s|\s$|^$', name) else name
