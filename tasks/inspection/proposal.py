"""The job that an inspection proposes: it runs as it is, and its sort is the likeliest of the candidates.

Guarantee: the job passes all checks of settings, and by the sample it makes dead letters of few records. Its topics are
not there yet.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

from pydantic import ValidationError

from tasks.inspection.columns import Column
from tasks.inspection.fields import Keys, Times
from tasks.inspection.guesses import Guess
from tasks.settings.job import Job
from tasks.settings.names import LONGEST_JOB_NAME, JobNames
from tasks.settings.sorts import LONGEST_TOPIC, find_collision, is_record_field

# A column of which more values than this are distinct is as good as one without equal values.
_NEARLY_ALL: Final = 0.9
# A key that is heavier than this makes one output partition much larger than the others.
_HEAVY: Final = 0.2
# Of fewer records nothing can be told.
_FEWEST_HEAVY: Final = 10
# A first run is refused at half of its own sample.
_MOST_DEAD: Final = 0.4
_BY_TIME: Final = "@timestamp"


@dataclass(frozen=True)
class Proposal:
    """A job. `settings`: by the names of a job; `term`: its sort; `others`: terms that its sort may be instead."""

    settings: Mapping[str, Any]
    term: str
    others: Sequence[tuple[str, Column]] = ()


@dataclass(frozen=True)
class Seen:
    """Facts of a sample of `count` records. `lost`: those that a sort by the value would make dead letters."""

    source: str
    count: int
    guess: Guess
    keys: Keys
    times: Times
    tombstones: int
    lost: int


def propose_job(seen: Seen, taken: Collection[str]) -> Proposal:
    """Propose a job over the topic. `taken`: the names of all topics."""
    candidates = rank_columns(seen)
    by_time = f"{_BY_TIME}{':nulls-last' * bool(seen.times.absent)}"
    terms = [(write_term(column, seen.keys), _note_format(column, seen.keys)) for column in candidates]
    term = terms[0][0] if terms else by_time
    proposal = Proposal(_make_settings(seen, term, seen.guess.settings, taken), term, terms[1:])
    if _is_valid(proposal):
        return proposal
    # The data hold something that settings cannot: this job names nothing of them.
    return Proposal(_make_settings(seen, by_time, {"format": "none"}, taken), by_time)


def _is_valid(proposal: Proposal) -> bool:
    try:
        Job.model_validate(proposal.settings)
    except ValidationError:
        return False
    return True


def rank_columns(seen: Seen) -> list[Column]:
    """Return the columns that a sort may name, the best first: few nulls, many distinct values.

    Sorts by the value make dead letters of tombstones, and a sort by the key does not.
    """
    of_values = [c for c in seen.guess.columns if c.is_sortable] if seen.lost <= _MOST_DEAD * seen.count else []
    ranked = sorted(of_values, key=_rank)
    key = seen.keys.column
    if not key.is_sortable:
        return ranked
    prefers_key = bool(seen.tombstones) and not key.nulls and key.distinct > 1
    return [key, *ranked] if prefers_key or not ranked else [*ranked, key]


def _rank(column: Column) -> tuple[bool, bool, float, float]:
    repeats = 0.0 if column.distinct_share >= _NEARLY_ALL else 1 - column.distinct_share
    return column.distinct < 2, column.null_share > _MOST_DEAD, round(column.null_share, 2), repeats


def _note_format(column: Column, keys: Keys) -> Column:
    """Note the setting that a sort by the key needs besides."""
    needed = "" if column is not keys.column else "".join(f'with key-format = "{v}"' for v in keys.settings.values())
    return replace(column, note=needed) if needed else column


def is_heavy(column: Column) -> bool:
    """Whether one value of the column makes its output partition much larger than the others."""
    return column.distinct > 1 and column.heaviest >= _FEWEST_HEAVY and column.heaviest_share > _HEAVY


def write_term(column: Column, keys: Keys) -> str:
    """Write the term of a sort by the column; columns of values have their types elsewhere."""
    is_typed = is_record_field(column.name) and column.type != "text" and not keys.settings
    kind = f":{column.type}" if is_typed else ""
    return f"{column.name}{kind}{':nulls-last' if column.nulls else ''}"


def _make_settings(seen: Seen, term: str, settings: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    own: dict[str, Any] = {"source_topic": seen.source, **settings}
    if term.startswith("@key"):
        own |= seen.keys.settings
    if term.startswith(_BY_TIME):
        own["timestamps"] = "keep"
    return own | _find_names(seen.source, term, taken)


def _find_names(source: str, term: str, taken: Collection[str]) -> dict[str, Any]:
    """Return names that no topic has: of the output, and of job and dead letters where the defaults are taken."""
    slug = re.sub(r"[^a-zA-Z0-9._]+", "-", term.partition(":")[0]).strip("-.")[:60] or "column"
    tried = (_make_names(source, slug, "" if number == 1 else f"-{number}") for number in count(1))
    job, dead, output = next(
        (job, dead, output)
        for job, dead, output in tried
        if not any(_is_taken(name, taken) for name in (JobNames(job).ledger, dead, output))
    )
    own = {} if job == source else {"job_name": job}
    if dead != f"{source}-dead-letters":
        own["dead_letter_topic"] = dead
    return {**own, "sorts": [f"{term}={output}"]}


def _make_names(source: str, slug: str, end: str) -> tuple[str, str, str]:
    """Return the names of the job, its dead letters and its output, each as long as is permitted at most."""

    def join(end: str, most: int = LONGEST_TOPIC) -> str:
        return f"{source[: most - len(end)]}{end}"

    return join(end, LONGEST_JOB_NAME), join(f"-dead-letters{end}"), join(f"-by-{slug}{end}")


def _is_taken(name: str, taken: Collection[str]) -> bool:
    return name in taken or find_collision(name, taken) is not None
