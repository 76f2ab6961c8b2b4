"""Inspects a topic: a bounded sample of it, what that shows, and a job that sorts it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tasks.formats.guess import SHOWN_BYTES, guess_format
from tasks.formats.schema_registry import SchemaRegistry, open_registry
from tasks.inspection.documents import JsonGuesser, read_documents
from tasks.inspection.fields import Keys, Sizes, Times, count_headers, describe_keys, describe_times, measure
from tasks.inspection.framed import FramedGuesser
from tasks.inspection.guesses import Guess, Guesser, Values
from tasks.inspection.job_file import write_job_file
from tasks.inspection.proposal import Proposal, Seen, propose_job
from tasks.inspection.reading import TopicSample, sample_topic
from tasks.inspection.rows import CsvGuesser, HeaderGuesser, TextGuesser, is_line
from tasks.kafka.clients import Admin
from tasks.kafka.reach import require_broker
from tasks.printable import counted
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job

_START_SECONDS: Final = 30.0
_LIST_SECONDS: Final = 10.0
# The first guess that holds is taken.
_GUESSERS: Final[Sequence[Guesser]] = (JsonGuesser(), HeaderGuesser(), CsvGuesser(), TextGuesser())


@dataclass(frozen=True)
class Inspection:
    """A topic as a sample shows it. `tombstones`: records without a value; `empty`: with a value of no byte."""

    sample: TopicSample
    guess: Guess
    keys: Keys
    times: Times
    headers: Mapping[str, int]
    sizes: Mapping[str, Sizes]
    tombstones: int
    empty: int
    proposal: Proposal

    @property
    def count(self) -> int:
        """The number of sampled records."""
        return len(self.sample.records)

    @property
    def job_file(self) -> str:
        """The text of a job file that sorts the topic."""
        return write_job_file(self.proposal, _remarks(self))


def inspect_topic(connection: Connection, admin: Admin, name: str, address: str | None = None) -> Inspection:
    """Inspect a topic. `address`: of its schema registry. SettingsError if there is no such topic, or it is empty."""
    require_broker(admin, connection, _START_SECONDS)
    with use_connection(connection):
        # An id that is not known now is told, and not waited for.
        registry = None if address is None else open_registry(address, patience=0)
        sample = sample_topic(connection, admin, name)
        return _judge(sample, registry, list(admin.list_topics(timeout=_LIST_SECONDS).topics))


def _judge(sample: TopicSample, registry: SchemaRegistry | None, topics: Sequence[str]) -> Inspection:
    records, values = sample.records, Values(sample.records)
    guess = guess_values(values, registry, sample.topic.name)
    keys, times = describe_keys(records, registry), describe_times(records)
    empty = len(values.all) - values.nulls - len(values.present)
    lost = values.nulls + empty + len(guess.misfits)
    seen = Seen(sample.topic.name, len(records), guess, keys, times, values.nulls, lost)
    proposal = propose_job(seen, topics)
    return Inspection(
        sample, guess, keys, times, count_headers(records), measure(records), values.nulls, empty, proposal
    )


def guess_values(values: Values, registry: SchemaRegistry | None, source: str) -> Guess:
    """Guess what the values are; of those that are of no format, the guess says what they look like."""
    if not values.present:
        return Guess("none", {"format": "none"}, notes=["no record has a value"])
    for guesser in (FramedGuesser(registry, source), *_GUESSERS):
        if guess := guesser.guess(values):
            return guess
    shown = [value[:SHOWN_BYTES] for value in values.present]
    hint = guess_format(shown, Job(source_topic="any", sorts=["@key"], format="none"))
    return Guess("binary" if hint else "mixed", {"format": "none"}, notes=[hint or _describe_mixture(values)])


def _describe_mixture(values: Values) -> str:
    """Return which parts of the values are of which kind."""
    documents = set(values.rows) - read_documents(values)[1].keys()
    rest = [value for row, value in zip(values.rows, values.present, strict=True) if row not in documents]
    lines = sum(map(is_line, rest))
    kinds = {"JSON": len(documents), "lines of text": lines, "others": len(rest) - lines}
    told = ", ".join(f"{name} ({count / len(values.present):.0%})" for name, count in kinds.items() if count)
    return f"values differ: {told}"


def _remarks(found: Inspection) -> list[str]:
    """Return what a reader of the job file should know."""
    sample, name = found.sample, found.sample.topic.name
    told = (
        ("its only record" if found.count == 1 else f"all {found.count:,} records")
        if sample.is_whole
        else f"{found.count:,} of about {sample.estimate:,} records"
    )
    lines = [
        f"Made by kafka-sort inspect {name}, by {told}.",
        "It runs as it is: kafka-sort sort --job FILE. Types and names are guesses by the sample: correct them first.",
        f"Values: {found.guess.name}.",
        *found.guess.notes,
    ]
    if found.guess.misfits:
        others = len(found.guess.misfits)
        lines.append(f"{counted(others, 'value')} of the sample {'is' if others == 1 else 'are'} something else.")
    if found.tombstones:
        lines.append(
            f"The sample has {counted(found.tombstones, 'record')} without a value: a sort by the value makes a dead "
            "letter of each, and a sort by @key alone does not."
        )
    return lines
