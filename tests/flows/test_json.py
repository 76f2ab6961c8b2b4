"""Sorts JSON by paths, through the whole command: the outputs, dead letters, inferred types and refusals."""

import json
import random
from typing import Any

import pytest

from tests.cluster import Cluster, Record
from tests.command import Command

BAD = {
    b'{"customer":{"id":1},"tags":["a"],': b"not JSON (",
    b'{"customer":{"id":1},"tags":["a"],}': b"not JSON (",
    b'{"customer":{"id":NaN},"tags":["a"]}': b"not JSON (NaN is no number of JSON, byte 18)",
    b'{"customer":{"id":"1"},"tags":["a"]}': b"column customer.id is not an integer",
    b'{"customer":{},"tags":["a"]}': b"column customer.id is missing",
    b'{"customer":{"id":null},"tags":["a"]}': b"column customer.id is null",
    b'{"customer":{"id":1},"tags":["\xff"]}': b"not JSON (not UTF-8, byte 30)",
}


def make_values(count: int) -> list[bytes]:
    """Make documents with ties, nulls and missing tags; some are pretty-printed, some have a byte order mark."""
    chance = random.Random(3)
    values = []
    for i in range(count):
        tags = chance.choice([["b"], ["a", "x"], ["\u00e9"], [None], [], None])
        document = {"n": i, "customer": {"id": chance.randrange(-20, 20)}, "tags": tags}
        text = json.dumps(document, indent=chance.choice([None, None, 2]), ensure_ascii=chance.random() < 0.5)
        values.append(chance.choice([b"", b"", b"\xef\xbb\xbf"]) + text.encode())
    return values


def tag_of(document: dict[str, Any]) -> str | None:
    tags: list[str] | None = document["tags"]
    return tags[0] if tags else None


def order(document: dict[str, Any]) -> tuple[int, bool, bytes]:
    tag = tag_of(document)
    return -document["customer"]["id"], tag is None, (tag or "").encode()


def reason_of(letter: Record) -> bytes:
    return dict(letter.headers)["__connect.errors.exception.message"] or b""


@pytest.mark.raises("UnknownTypeError")
@pytest.mark.slow
def test_by_paths(cluster: Cluster, command: Command) -> None:
    """Order, nulls and dead letters are right; what was inferred is recorded, and fixed for later runs."""
    source = cluster.make_topic(1)
    good = make_values(300)
    values = [*good[:100], *BAD, *good[100:]]
    cluster.produce(source, values, 1)
    sort = f"customer.id:int:desc,tags[0]:nulls-last={source}-sorted"
    job = command.job(source, format="json", sorts=[sort])
    done = command.run(job)
    assert done.status == 0, done.err
    found = [
        json.loads(record.value.decode("utf-8-sig")) for record in cluster.read(f"{source}-sorted") if record.value
    ]
    # `sorted` is stable, and ties stay in order of arrival.
    assert found == sorted((json.loads(value.decode("utf-8-sig")) for value in good), key=order)
    assert sorted(record.value or b"" for record in cluster.read(f"{source}-sorted")) == sorted(good)
    letters = {record.value or b"": reason_of(record) for record in cluster.read(job.dead_letters)}
    assert letters.keys() == BAD.keys()
    for value, reason in BAD.items():
        assert letters[value].startswith(reason)
    assert cluster.ledger(job).runs[1].format["columns"] == "customer.id:int,tags[0]:text"
    # The first run has seen texts: for a number there is no place now.
    cluster.produce(source, [b'{"customer":{"id":1},"tags":[5]}'], 1)
    assert command.run(job).status == 0
    assert cluster.ledger(job).runs[2].format["columns"] == "customer.id:int,tags[0]:text"
    assert b"column tags[0] is not a string: '5'" in map(reason_of, cluster.read(job.dead_letters))
    refused = command.run(command.job(source, format="json", sorts=[sort.replace(":int", ":text")]))
    assert refused.status == 2
    assert "has columns 'customer.id:int,tags[0]:text' by its ledger" in refused.err
    unknown = command.run(command.job(source, format="json", sorts=["tags"], job_name=f"{source}-other"))
    assert unknown.status == 2
    assert "column tags of source" in unknown.err
    assert "sort by what is within, as --sort tags[0]" in unknown.err


@pytest.mark.slow
def test_a_stream_infers_once(cluster: Cluster, command: Command) -> None:
    """Its first batch infers the types, and the others take them."""
    source = cluster.make_topic(1)
    cluster.produce(source, make_values(50), 1)
    job = command.job(source, format="json", sorts=[f"tags[0]:nulls-first={source}-sorted"])
    flags = ("--batch-size", "20", "--max-latency", "0.2", "--max-batches", "2")
    done = command.run(job, *flags, command="stream")
    assert done.status == 0, done.err
    runs = cluster.ledger(job).runs
    assert {run.format["columns"] for run in runs.values()} == {"tags[0]:text"}
    assert sum(run.placed for run in runs.values()) == 50
