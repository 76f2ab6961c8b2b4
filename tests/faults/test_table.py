"""The tables of docs/faults.md name tests that exist, and every test of this folder."""

import re
from pathlib import Path

from tests.documents import text_of

TESTS = Path(__file__).parents[1]
ROWS = re.findall(r"^\| .* \| (`test_.*`) \|$", text_of("docs/faults.md"), re.MULTILINE)


def defined(folder: Path) -> set[str]:
    return {
        name
        for file in folder.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }


def test_every_row_has_a_test() -> None:
    """Each name in the table is a test: a name without one would be an empty promise."""
    assert len(ROWS) > 20
    for row in ROWS:
        assert set(re.findall(r"`(test_\w+)`", row)) <= defined(TESTS), row


def test_every_fault_is_in_the_table() -> None:
    """Each test of this folder, and each of a host that dies, is in the table."""
    named = {name for row in ROWS for name in re.findall(r"`(test_\w+)`", row)}
    assert defined(Path(__file__).parent) - {"test_every_row_has_a_test", "test_every_fault_is_in_the_table"} <= named
    assert {name for name in defined(TESTS / "hosts") if name.startswith("test_a_host_dies_while")} <= named
