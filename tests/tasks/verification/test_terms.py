"""Verification reads the ledger's notation of columns and sorts by code of its own."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tasks.settings.paths import format_path, quote
from tasks.settings.sorts import parse_columns, parse_sort
from tasks.verification.terms import Column, KeyColumn, Kind, carried, read_column, read_kinds, read_path, read_sort

NAMES = st.text(alphabet='ab.,:="@[]0 é', min_size=1, max_size=6)


@given(st.lists(NAMES | st.integers(0, 10**8), min_size=1, max_size=4))
def test_paths_are_read_as_they_are_written(path: list[str | int]) -> None:
    """Each path that a job can name comes back from its notation, whatever is in its names."""
    assert read_path(format_path(tuple(path))) == tuple(path)


@given(NAMES)
def test_names_of_fields_are_read_as_they_are_written(name: str) -> None:
    """A name in quotes is one field, dots and brackets included."""
    assert read_column(quote(name), is_csv=True) == Column("", (name,))


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_columns_and_sorts_of_a_ledger(names: list[str]) -> None:
    """Commas and colons within quotes belong to a name; what is not written is text, ascending and without nulls."""
    written = [quote(name) for name in names]
    kinds = read_kinds({"columns": ",".join(f"{name}:int" for name in written)})
    assert kinds == {Column("", (name,)): Kind("int") for name in names}
    sort = read_sort(",".join(f"{name}:desc:nulls-last" for name in written), {"columns": ",".join(written)})
    assert [(key.column.path, key.kind, key.descending, key.nulls) for key in sort] == [
        ((name,), Kind("text"), True, "last") for name in names
    ]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("@key", Column("@key", ())),
        ("@key.a[0].b", Column("@key", ("a", 0, "b"))),
        ("@header.a.b", Column("@header", ("a.b",))),
        ('@header."a,b"', Column("@header", ("a,b",))),
        ('"@key"', Column("", ("@key",))),
        ("items[0].sku", Column("", ("items", 0, "sku"))),
        ('"odd.name".x', Column("", ("odd.name", "x"))),
        ('"a""b"', Column("", ('a"b',))),
        ("[2][0]", Column("", (2, 0))),
    ],
)
def test_notation(text: str, column: Column) -> None:
    """Record fields, paths behind them, and paths into values."""
    assert read_column(text, is_csv=False) == column


def test_types() -> None:
    """Types have parameters; record fields have a type of their own unless the ledger names another."""
    facts = {"name": "json", "columns": "at:time(ms),a.b:text(de)", "fields": "@header.n:int,@key:uuid"}
    sort = read_sort("at,a.b,@header.n,@header.m,@key,@timestamp,@partition,@offset:desc", facts)
    kinds = ["time(ms)", "text(de)", "int", "text", "uuid", "int", "int", "int"]
    assert [f"{k.kind.name}({k.kind.parameter})".removesuffix("()") for k in sort] == kinds
    assert [key.name for key in carried(sort)] == ["at", "a.b", "@header.n", "@header.m", "@key", "@timestamp"]
    assert carried(read_sort("@offset,at", facts)) == ()


def test_old_ledgers_mean_the_same() -> None:
    """A record of before formats had names is CSV; a quote within a name was a letter."""
    facts = {"columns": 'id:int,a"b,c.d', "delimiter": ","}
    assert list(read_kinds(facts)) == [Column("", (name,)) for name in ("id", 'a"b', "c.d")]
    assert read_sort("c.d:desc", facts) == (KeyColumn(Column("", ("c.d",)), Kind("text"), descending=True, name="c.d"),)


@pytest.mark.parametrize("columns", ["gone", "@nothing", "@nothing.x"])
def test_what_cannot_be_read(columns: str) -> None:
    """A sort by a column that the format does not have, or by an unknown field, is an error."""
    with pytest.raises(ValueError, match="no column|no record field"):
        read_sort(columns, {"columns": "id:int,name"})


def test_both_sides_read_the_same_sorts() -> None:
    """Verification reads sorts and columns of the ledger as the job wrote them."""
    for text in ('"a,b":desc:nulls-first,id', "name:nulls-last"):
        keys = parse_sort(text)[0]
        sort = read_sort(",".join(map(str, keys)), {"columns": '"a,b",id:int,name'})
        assert [(key.descending, key.nulls) for key in sort] == [(key.descending, key.nulls) for key in keys]
    assert {c.path[0]: kind.name for c, kind in read_kinds({"columns": '"a,b":int,x'}).items()} == {
        name.strip('"'): kind.name for name, kind in parse_columns('"a,b":int,x').items()
    }
