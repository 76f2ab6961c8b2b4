"""The schema ids that a job has met, in its ledger: a registry must not have another text under a known id.

Guarantee: a run that reads records by another schema than an earlier one did under its id stops before it publishes.
"""

from collections.abc import Iterable, Mapping

from tasks.errors import TerminalError
from tasks.manifests import Chunk

_FACT = "schemas"


class SchemaChangedError(TerminalError):
    """The schema registry has another text under an id than when the job, or another task of its run, read it."""

    action = (
        "Find out what replaced the schema, or whether `--schema-registry` is another registry. To go on with other "
        "schemas, take another `--job-name` and other outputs."
    )


def describe_schemas(recorded: Mapping[str, str], chunks: Iterable[Chunk]) -> dict[str, str]:
    """Return the ledger's fact of all schemas that were used, `recorded` by earlier runs or in these chunks.

    Nothing if there are none. SchemaChangedError names an id with two texts.
    """
    known = read_schemas(recorded)
    for schema, digest in (pair for chunk in chunks for pair in chunk.schemas):
        if known.setdefault(schema, digest) != digest:
            raise SchemaChangedError(
                f"schema id {schema} has another text than before, by SHA-256 {digest}, and was {known[schema]}: "
                "nothing was published; restore the schema, or take another --job-name and other outputs"
            )
    return {_FACT: ",".join(f"{schema}={known[schema]}" for schema in sorted(known))} if known else {}


def without_schemas(recorded: Mapping[str, str]) -> dict[str, str]:
    """Return the facts of a format without that of its schemas, which each run may add to."""
    return {name: fact for name, fact in recorded.items() if name != _FACT}


def read_schemas(recorded: Mapping[str, str]) -> dict[str, str]:
    """Read the fact: schema id → SHA-256."""
    pairs = (item.partition("=") for item in recorded.get(_FACT, "").split(",") if item)
    return {schema: digest for schema, _, digest in pairs}
