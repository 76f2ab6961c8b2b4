"""The objects that `sort` and `verify` print for a script, as docs/output.md describes them."""

from dataclasses import asdict
from typing import Any

from tasks.manifests import Key
from tasks.run_record import RunRecord, WrittenRange, WrittenSort
from tasks.settings.job import Job
from tasks.verify import RunVerification, Verification


def sort_facts(job: Job, record: RunRecord | None) -> dict[str, Any]:
    """Return what a run read and wrote; `record` is None if there was nothing new."""
    return _nothing_new(job) if record is None else _run_facts(record)


def merge_facts(job: Job, record: RunRecord | None) -> dict[str, Any]:
    """Return the same of a merge; `record` is None if there was nothing to merge."""
    if record is None:
        return {**_nothing_new(job), "state": "nothing to merge"}
    return {**_run_facts(record), "state": "merged"}


def _nothing_new(job: Job) -> dict[str, Any]:
    """Return the same members as those of a run."""
    names = {"job": job.name, "state": "nothing new", "source": job.source_topic, "dead_letter_topic": job.dead_letters}
    unknown: dict[str, Any] = dict.fromkeys(("run", "started", "published"))
    lists: dict[str, Any] = {name: [] for name in ("ranges", "lost", "skipped", "covers", "outputs")}
    return {**names, **unknown, **lists, "records": 0, "dead_letters": 0, "dead_letters_written": 0, "seconds": {}}


def _run_facts(record: RunRecord) -> dict[str, Any]:
    written = record.dead_letters if record.dead_letters_written is None else record.dead_letters_written
    return {
        "job": record.job,
        "state": "sorted",
        "source": record.source_topic,
        "run": record.run,
        "records": record.records,
        "dead_letters": record.dead_letters,
        "dead_letters_written": written,
        "dead_letter_topic": record.dead_letter_topic,
        "ranges": [asdict(r) for r in record.read],
        "lost": [asdict(r) for r in record.lost],
        "skipped": list(record.skipped),
        "covers": [asdict(runs) for runs in record.covers],
        "outputs": list(map(_output_facts, record.sorts)),
        "started": record.started,
        "published": record.published,
        "seconds": dict(record.seconds),
    }


def _output_facts(sort: WrittenSort) -> dict[str, Any]:
    files = {file.partition: file.name for file in sort.files}
    return {
        "topic": sort.topic,
        "folder": sort.folder or None,
        "columns": sort.columns,
        "records": sort.count,
        "expired": sort.expired,
        "superseded": sort.superseded,
        "partitions": [_range_facts(w, files.get(w.partition)) for w in sort.partitions],
    }


def _range_facts(written: WrittenRange, file: str | None) -> dict[str, Any]:
    return {
        "file": file,
        "partition": written.partition,
        "records": written.count,
        "first_offset": written.first,
        "last_offset": written.last,
        "first_key": _key(written.first_key),
        "last_key": _key(written.last_key),
    }


def _key(key: Key | None) -> list[Any] | None:
    return None if key is None else list(key)


def verification_facts(found: Verification) -> dict[str, Any]:
    """Return what was verified, and what differs."""
    return {"job": found.job, "ok": found.ok, "runs": list(map(_verified_facts, found.runs))}


def _verified_facts(run: RunVerification) -> dict[str, Any]:
    return {
        "run": run.run,
        "ok": run.ok,
        "records": run.records,
        "dead_letters": run.dead_letters,
        "outputs": list(run.outputs),
        "differences": [
            {"topic": d.topic, "partition": d.partition, "offset": d.offset, "what": d.what} for d in run.differences
        ],
        "hidden_differences": run.hidden,
        "unverifiable": list(run.unverifiable),
        "seconds": run.seconds,
    }
