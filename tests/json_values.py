"""JSON values made to collide: documents with the tokens that parsers treat specially, and mutated ones.

`expect` reads them by Python's own parser, as RFC 8259 and the rules of docs/formats.md say.
"""

import json
from typing import Any

import hypothesis.strategies as st

BOM = b"\xef\xbb\xbf"
NUMBERS = [
    "0",
    "-0",
    "7",
    "-12",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "9" * 40,
    "1.0",
    "1.10",
    "-0.0",
    "1e3",
    "1E+3",
    "1e-7",
    "0e5",
    "1e400",
    "-1e400",
    "1e-400",
    "0.12345678901234567890123",
    "12345678901234567.0",
    "1.0000000000000000001",
    "123456789012345678e-2",
    "1.23456789012345e-320",
    "2.2250738585072011e-308",
]
NO_NUMBERS = [
    "NaN",
    "nan",
    "-NaN",
    "Infinity",
    "-Infinity",
    "inf",
    "-inf",
    "INF",
    ".5",
    "+1",
    "01",
    "0x10",
    "1.",
    "1e",
    "-",
]
STRINGS = [
    '""',
    '"a"',
    '"7"',
    '"null"',
    '" nan, inf ,] ,}"',
    '"caf\\u00e9"',
    '"é€😀"',
    '"\\ud83d\\ude00"',
    '"a\\\\b\\"c\\/d\\n"',
    '"\\u0000x"',
    '"\\\\ud800"',
    '"[{[{"',
]
NO_STRINGS = ['"\\ud800"', '"\\udc00\\ud800"', '"\\x41"', '"\\u12"', '"\t"', "'a'", '"', '"\x00"']
OTHERS = ["true", "false", "null", "{}", "[]", "[1, [2]]"]
NO_OTHERS = ["True", "nul", "[1,]", "[,]", '{"x":1,}', "/**/1", "1 2", "undefined", ""]
NAMES = ['"a"', '"b"', '"b"', '"\\u0061"', '"a\\u0000"', '""', '"a.b"', '"A"', '"nan"']
BLANKS = st.sampled_from(["", "", "", " ", "\n", "\r\n\t "])
FRAGMENTS = [
    b'"',
    b",",
    b"}",
    b"]",
    b"{",
    b"[",
    b":",
    b"\\",
    b"\xff",
    b"\x00",
    b"\n",
    b" ",
    b"NaN",
    b"1",
    b"\xc3",
    b"e9",
    BOM,
]


@st.composite
def tokens(draw: st.DrawFn, *, bad: int = 0) -> str:
    """Make a token, one of so many of which is none by RFC 8259."""
    if bad and draw(st.integers(0, bad)) == 0:
        return draw(st.sampled_from([*NO_NUMBERS, *NO_STRINGS, *NO_OTHERS]))
    return draw(st.sampled_from([*NUMBERS, *STRINGS, *OTHERS]))


@st.composite
def documents(draw: st.DrawFn, *, bad: int = 0) -> bytes:
    """Make an object with some of NAMES, nested once, with blanks around its tokens."""
    space = draw(BLANKS)

    def write(depth: int) -> str:
        members = draw(st.lists(st.tuples(st.sampled_from(NAMES), tokens(bad=bad)), max_size=4))
        parts = [f"{space}{name}{space}:{space}{token}{space}" for name, token in members]
        if depth:
            parts.append(f'"n":{write(depth - 1)}')
            parts.append(f'"items":[{space}{draw(tokens())}{space},{write(depth - 1)}]')
        return f"{space}{{{','.join(draw(st.permutations(parts)))}}}{space}"

    mark = draw(st.sampled_from([b"", b"", b"", BOM]))
    return mark + write(1).encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Make a document, and cut it or put bytes into it that it does not need."""
    value = draw(documents(bad=draw(st.sampled_from([0, 12]))))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(value)))
        end = place + draw(st.integers(0, 3))
        value = value[:place] + draw(st.sampled_from([b"", *FRAGMENTS])) + value[end:]
    return value


@st.composite
def blocks(draw: st.DrawFn) -> list[bytes | None]:
    """Make values of one kind, or of all: a block takes other paths if some are bad."""
    kind = draw(st.sampled_from([documents(), mutated(), st.one_of(st.none(), st.just(b""), documents(), mutated())]))
    values: list[bytes | None] = draw(st.lists(kind, min_size=1, max_size=8))
    return values


class Missing:
    """What a document does not have."""


def expect(value: bytes | None, path: tuple[str | int, ...]) -> Any:
    """Return what is at the path: a number as Number; Missing where there is nothing. ValueError if it is not JSON."""
    found = parse(value)
    for step in path:
        found = _step(found, step)
    return found


def _step(found: Any, step: str | int) -> Any:
    if isinstance(step, str):
        return found.get(step, Missing) if isinstance(found, dict) else Missing
    return found[step] if isinstance(found, list) and step < len(found) else Missing


class Number(str):
    """The digits of a number."""

    __slots__ = ()


def parse(value: bytes | None) -> Any:
    """Parse strictly, with the first of equal names."""
    if not value:
        raise ValueError("nothing")
    text = value.removeprefix(BOM).decode()
    found = json.loads(
        text, parse_int=Number, parse_float=Number, parse_constant=_refuse, object_pairs_hook=_first_of_each
    )
    json.dumps(found, ensure_ascii=False).encode()  # A lone surrogate has no UTF-8.
    return found


def _refuse(name: str) -> None:
    raise ValueError(name)


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in pairs:
        json.dumps(item, ensure_ascii=False).encode()  # Also where another one counts.
        found.setdefault(name, item)
    return found
