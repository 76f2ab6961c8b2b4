"""Inference: the types of columns that a job gives none, by a sample of what its first run reads.

A type is only as wide as can be: numbers are `decimal`, strings `text`, true and false `bool`. `int` and `time` are
given, never inferred. What a run has inferred is in its ledger record, and fixed from then on.
"""

from collections import Counter
from collections.abc import Mapping

from tasks.errors import SettingsError
from tasks.formats.kinds import NOTHING, NUMERIC_TEXT, TIME_TEXT, TYPES
from tasks.observe.logs import get_logger
from tasks.sample import Sample
from tasks.settings.job import Job

_SHOWN = {
    "number": "numbers",
    "string": "strings",
    NUMERIC_TEXT: "strings",
    TIME_TEXT: "strings",
    "bool": "true or false",
    "object": "objects",
    "array": "arrays",
}

# Values that no type takes, and the step that leads into them.
_WITHIN = {"object": ".NAME", "array": "[0]"}


class UnknownTypeError(SettingsError):
    """A column is given no type, and a sample of its values does not tell one: they differ, or there are none."""

    action = "Give the column a type, in a sort or with `--columns`: `--sort customer.id:int`."


def refuse_unlike(job: Job, sample: Sample) -> None:
    """Raise UnknownTypeError if an untyped column holds values of no type, or of several."""
    for column in job.untyped:
        if _present(sample, column):
            _infer(job, sample, column)


def infer_types(job: Job, sample: Sample) -> dict[str, str]:
    """Return the types of the untyped columns; none while no record was read. UnknownTypeError says what was seen."""
    return {name: _infer(job, sample, name) for name in job.untyped} if sample.records else {}


def _seen(sample: Sample, column: str) -> Counter[str]:
    return Counter(record.seen[column] for record in sample.records if column in record.seen)


def _present(sample: Sample, column: str) -> dict[str, int]:
    return {kind: count for kind, count in _seen(sample, column).items() if kind not in NOTHING}


def _infer(job: Job, sample: Sample, column: str) -> str:
    present = _present(sample, column)
    types = {TYPES.get(kind, "") for kind in present}
    if len(types) == 1 and (found := types.pop()):
        return found
    way = f"give it one, as --sort {column}:text, or :int, :decimal, :float, :bool, :time, :uuid"
    if present and present.keys() <= _WITHIN.keys():
        way = f"sort by what is within, as --sort {column}{_WITHIN[max(present, key=lambda kind: present[kind])]}"
    raise UnknownTypeError(
        f"column {column} of source {job.source_topic} has no type, and {_describe(_seen(sample, column), present)}: "
        f"{way}"
    )


def _describe(seen: Mapping[str, int], present: Mapping[str, int]) -> str:
    if not present:
        found = ", ".join(f"{count:,} {'null' if kind == 'null' else 'without it'}" for kind, count in seen.items())
        return f"the records that were sampled have no value there ({found or 'none can be read'})"
    counts: Counter[str] = Counter()
    for kind, count in present.items():
        counts[_SHOWN.get(kind, kind)] += count
    return f"the records that were sampled hold {', '.join(f'{n:,} {kind}' for kind, n in counts.most_common())} there"


def warn_of_types(job: Job, sample: Sample, types: Mapping[str, str]) -> None:
    """Log inferred types, and warn of texts that look like numbers or times but are compared by their bytes."""
    if types:
        get_logger().info("types inferred", types=", ".join(f"{name}:{kind}" for name, kind in types.items()))
    for column in (*job.untyped, *job.default_texts):
        kinds = {record.seen[column] for record in sample.records if column in record.seen} - NOTHING
        if kinds == {NUMERIC_TEXT}:
            _warn(column, "numbers", "int or :decimal")
        elif kinds == {TIME_TEXT}:
            _warn(column, "times", "time")


def _warn(column: str, what: str, kind: str) -> None:
    get_logger().warning(
        f"the texts of a column look like {what}, and are compared as text: give it a type to change that, as :{kind}",
        column=column,
    )
