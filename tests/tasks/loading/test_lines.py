"""Lines and rows of CSV are the same whatever the blocks are, and one broken row costs no other."""

from collections.abc import Sequence
from itertools import chain, repeat

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from tasks.loading.lines import BOM, BrokenInputError, LineCutter

LONGEST = 10**9
# Rows with the number of their first line, the number of empty lines, and whether a row never ends.
Cut = tuple[list[tuple[int, bytes]], int, bool]


def length_of_row(lines: Sequence[bytes], delimiter: bytes) -> int | None:
    """Return of how many lines the first row is, character by character; None if its quotes are not closed."""
    state, is_strict = "start", True
    for count, line in enumerate(lines, 1):
        body, k = line + b"\n", 0
        while k < len(body):
            here, behind = body[k : k + 1], body[k + 1 :]
            if state == "quoted" and here == b'"' == behind[:1]:
                k += 1
            elif state == "quoted" and here == b'"':
                state = "text"
                is_strict &= behind[:1] == delimiter or behind in {b"\n", b"\r\n"}
            elif state != "quoted" and here == delimiter:
                state = "start"
            elif state == "start" and here == b'"':
                state = "quoted"
            elif state != "quoted" and here == b"\n":
                return count if is_strict else 1
            elif state == "start":
                state = "text"
            k += 1
    return None


def expected(text: bytes, delimiter: bytes | None) -> Cut:
    text = text.removeprefix(BOM)
    lines = (text if text.endswith(b"\n") or not text else text + b"\n").split(b"\n")[:-1]
    rows: list[tuple[int, bytes]] = []
    empty, line = 0, 0
    while line < len(lines):
        count = 1 if delimiter is None else length_of_row(lines[line:], delimiter)
        if count is None:
            return rows, empty, True
        row = b"\n".join(lines[line : line + count]).removesuffix(b"\r")
        if row:
            rows.append((line + 1, row))
        else:
            empty += 1
        line += count
    return rows, empty, False


def cut(text: bytes, delimiter: bytes | None, sizes: Sequence[int]) -> Cut:
    """Cut the text in blocks of these sizes, over and over."""
    cutter = LineCutter(None if delimiter is None else delimiter.decode(), LONGEST)
    rows: list[tuple[int, bytes]] = []
    empty, place = 0, 0
    try:
        for size in chain.from_iterable(repeat(sizes)):
            found = cutter.cut(text[place : place + size], last=place + size >= len(text))
            values = found.values().to_pylist()
            assert found.lengths.tolist() == list(map(len, values))
            rows += zip(found.first.tolist(), values, strict=True)
            empty += found.empty
            place += size
            if place >= len(text):
                cutter.cut(b"", last=True)
                break
    except BrokenInputError:
        return rows, empty, True
    return rows, empty, False


TEXTS = st.sampled_from(['ab,"\n', 'a"\n\r,', '",\n', "ab\n\r", '"\na', '"\xef\xbb\xbf\n\xff']).flatmap(
    lambda letters: st.text(letters, max_size=40)
)


@given(TEXTS, st.sampled_from([b",", b";", None]), st.lists(st.integers(1, 9), min_size=1, max_size=4))
@example('1,"a\nb",x\n2,y\n', b",", [3])
@example('5" pipe,"a\nb"\n7,8\n', b",", [100])
@example('"open,x\n"y",z\n', b",", [100])
@example('"a\n"\rb,c\n', b",", [4])
@example('"a""\n"",b"\r\n\r\n\n', b",", [1])
@example("\xef\xbb\xbfa\r\n\r\nb\r", None, [1])
def test_rows_do_not_depend_on_blocks(text: str, delimiter: bytes | None, sizes: list[int]) -> None:
    """In blocks of any size each row is what a reader of single characters finds, and has the number of its line."""
    assert cut(text.encode("latin-1"), delimiter, sizes) == expected(text.encode("latin-1"), delimiter)


def test_a_line_is_a_record_without_its_line_break() -> None:
    """LF and CRLF end lines, the last one needs neither, an empty line is counted, and a CR elsewhere stays."""
    assert cut(b"a\r\n\r\nb\rc\n\n d\r", None, [100]) == ([(1, b"a"), (3, b"b\rc"), (5, b" d")], 2, False)


def test_a_row_goes_on_within_quotes() -> None:
    """A row of CSV with line breaks within quotes is one record; the line breaks in it stay as they are."""
    text = b'1,"two\r\nlines, ""quoted""\n",x\r\n2,y\n'
    assert cut(text, b",", [7]) == ([(1, text.removesuffix(b"\r\n2,y\n")), (4, b"2,y")], 0, False)
    assert cut(text, None, [7])[0][0] == (1, b'1,"two')


def test_broken_quotes_cost_their_own_row() -> None:
    """A row with quotes that are closed wrongly is its first line alone: the rows behind it are whole."""
    text = b'1,"broken,x\n2,"good, ""y""\nand more",z\n3,5" pipe\n'
    rows, _, _ = cut(text, b",", [100])
    assert rows == [(1, b'1,"broken,x'), (2, b'2,"good, ""y""\nand more",z'), (4, b'3,5" pipe')]


def test_quotes_that_never_close_are_an_error() -> None:
    """The rows in front of them come, and the error names their line."""
    cutter = LineCutter(",", LONGEST)
    assert len(cutter.cut(b'1,a\n2,b\n3,"c\n4,d\n', last=True)) == 2
    with pytest.raises(BrokenInputError, match="line 3 are not closed"):
        cutter.cut(b"", last=True)


@pytest.mark.parametrize(
    ("begun", "message"), [(b"x", "line 2 is longer than 1,000"), (b'"\n', "line 2 are not closed")]
)
def test_a_row_is_bounded(begun: bytes, message: str) -> None:
    """A file without line breaks, or with a quote that opens and never closes, does not fill the memory."""
    cutter = LineCutter(",", 1000)
    assert len(cutter.cut(b"1,a\n" + begun)) == 1
    assert not len(cutter.cut(b"y" * 900))
    with pytest.raises(BrokenInputError, match=message):
        cutter.cut(b"y" * 1001)


def test_rows_are_taken_in_any_order() -> None:
    """Some rows of a block come in the order that is asked for, without those between."""
    rows = LineCutter(None, LONGEST).cut(b"a\n\nbb\nccc\n")
    assert rows.values(np.array([2, 0])).to_pylist() == [b"ccc", b"a"]
    assert rows.only(slice(1, None)).values().to_pylist() == [b"bb", b"ccc"]
    assert rows.only(np.array([False, False, True])).first.tolist() == [4]
