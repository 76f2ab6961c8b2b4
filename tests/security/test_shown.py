"""Content of records is shown as text: in a terminal, in Prefect's markdown, in the ledger."""

from tasks.observe.report import _markdown, _show


def test_a_key_moves_no_cursor() -> None:
    """Control codes, which a terminal would obey, are shown as escapes; letters of any language stay."""
    assert _show(("\x1b[2J\x1b]0;owned\x07", 7)) == r"\x1b[2J\x1b]0;owned\x07, 7"
    assert _show(("Zoë 名前\u202e",)) == r"Zoë 名前\u202e"


def test_a_key_is_no_markup() -> None:
    """A picture would be fetched by every browser that shows the summary."""
    hostile = "![x](http://evil/?c) <img src=x> a|b"
    table = _markdown((("first key",), [(_show((hostile,)),)]))
    row = table.splitlines()[-1]
    assert r"\!\[x\]\(http:\/\/evil\/?c\) \<img src=x\> a\|b" in row
