"""Writes the job file of an inspection: TOML with comments, which a person edits and `--job` reads."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import tomli_w

from tasks.inspection.columns import Column
from tasks.inspection.proposal import Proposal
from tasks.printable import printable

_SHOWN_OTHERS: Final = 20


def write_job_file(proposal: Proposal, remarks: Sequence[str]) -> str:
    """Return the text of the job file; `remarks` are comments at its top, a line each."""
    settings = dict(proposal.settings)
    sorts = settings.pop("sorts")
    lines = [
        *map(_comment, remarks),
        *_write(settings),
        "",
        "# Each sort is COLUMNS[=TOPIC], and its topic is created.",
    ]
    return "\n".join([*lines, *_write({"sorts": sorts}), *_write_others(proposal.others)]) + "\n"


def _write(settings: Mapping[str, Any]) -> list[str]:
    return [tomli_w.dumps({name.replace("_", "-"): value}).rstrip("\n") for name, value in settings.items()]


def _write_others(others: Sequence[tuple[str, Column]]) -> list[str]:
    if not others:
        return []
    shown = [_comment(f"  {term}  ({_describe(column)})") for term, column in others[:_SHOWN_OTHERS]]
    more = [_comment(f"  and {len(others) - _SHOWN_OTHERS} more")] * (len(others) > _SHOWN_OTHERS)
    return ["# Other columns that a sort may name:", *shown, *more]


def _describe(column: Column) -> str:
    return ", ".join(filter(None, (column.type, f"{column.distinct:,} distinct in the sample", column.note)))


def _comment(text: str) -> str:
    """Return one line of a comment, whatever the text holds."""
    return f"# {printable(text)}"
