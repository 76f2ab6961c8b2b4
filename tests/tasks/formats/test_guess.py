"""Guesses name a format that people give by mistake, and nothing that differs from value to value."""

import pytest

from tasks.formats.guess import SHOWN_BYTES, guess_format
from tasks.settings.job import Job

Values = list[bytes | None]

GUESSES: dict[str, tuple[Values, str]] = {
    "JSON": ([b'{"id": 3, "name": "c"}', b'\xef\xbb\xbf{"id": 4}'], "looks like JSON"),
    "JSON that is cut": ([b'{"id": ' + b"1" * (SHOWN_BYTES - 7)], "looks like JSON"),
    "no JSON": ([b"{3,x,y}"], "the values have 3 fields, and --columns names 2"),
    "XML": ([b"<row><id>3</id></row>"], "looks like XML"),
    "tombstones": ([None, None, b"x"], "most have no value (tombstones)"),
    "empty values": ([b"", b"", None], "most are empty"),
    "a schema registry": ([b"\0\0\0\0\x07\x06abc", b"\0\0\0\0\x07\x08abcd"], "magic byte 0, then schema id 7"),
    "protobuf": ([b"\x08\x01\x12\x03abc"], "looks binary"),
    "UTF-16": (["1,a".encode("utf-16-le")], "looks like text in UTF-16"),
    "gzip": ([b"\x1f\x8b\x08\0\0"], "looks like gzip"),
    "a semicolon": ([b"1;a", b"2;b,c"], "the delimiter seems to be ';'"),
    "a tab": ([b"1\ta", b"2\tb"], "the delimiter seems to be a tab"),
    "another number of another delimiter": ([b"1|a|x"], "'|', with 3 fields where --columns names 2"),
    "too many fields": ([b"1,a,x", b'2,"b,c",y'], "the values have 3 fields, and --columns names 2"),
    "one field": ([b"hello", b"a few words"], "the values have 1 field, and --columns names 2"),
    "a header in each value": ([b"ID,name\n1,a", b"ID,name\n2,b"], "add --csv-header"),
    "several rows in each value": ([b"1,a\n2,b", b"3,c\n4,d"], "each value holds several rows"),
    "no integers": ([b"u-1,a", b"1.5,b"], "column id does not hold integers"),
    "integers too large": ([b"99999999999999999999,a"], ""),
    "nothing in common": ([b"hello", b'{"a": 1}', b"a;b;c", b"1,2,3"], ""),
}


@pytest.mark.parametrize(("values", "hint"), GUESSES.values(), ids=GUESSES)
def test_a_guess(values: Values, hint: str) -> None:
    """A guess gives the hint that helps, or none."""
    guessed = guess_format(values, Job(source_topic="s", columns="id:int,name", sorts=["id"]))
    assert hint in guessed
    assert bool(hint) == bool(guessed)


HEADED: dict[str, tuple[Values, str]] = {
    "no header line": ([b"1,a", b"2,b"], "leave out --csv-header"),
    "several rows": ([b"id,name\n1,a\n2,b"], "a value is a header line and one row"),
    "another delimiter": ([b"id;name\n1;a", b"name;id\nb;2"], "the delimiter seems to be ';'"),
    "other names": ([b"Id,n\xc3\xa4me\n1,a"], "the names in the header lines are 'Id,näme'"),
    "no integers": ([b"id,name\nx,a"], ""),
}


@pytest.mark.parametrize(("values", "hint"), HEADED.values(), ids=HEADED)
def test_a_guess_about_values_with_a_header_line(values: Values, hint: str) -> None:
    """A guess knows that values have two lines, and names what the first one has."""
    guessed = guess_format(values, Job(source_topic="s", csv_header=True, sorts=["id:int"]))
    assert hint in guessed
    assert bool(hint) == bool(guessed)
