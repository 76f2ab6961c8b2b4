"""Topics of Protobuf through the whole command: the outputs, the dead letters, the ledger and the refusals."""

import random
from pathlib import Path

import pytest
from confluent_kafka import Producer
from google.protobuf import message_factory

from tasks.formats.protobuf.schema import compile_proto, load_message
from tests.cluster import Cluster
from tests.command import Command

ORDER = """syntax = "proto3"; package shop; message Customer { int64 id = 1; }
message Order { Customer customer = 1; repeated string tags = 2; string note = 3; }
"""


def produce(cluster: Cluster, topic: str, values: list[bytes | None]) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for i, value in enumerate(values):
        producer.produce(topic, value, b"k", i % 4)
    assert producer.flush(30) == 0


def test_sort_by_fields(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """Nested fields and items sort by their schema's types; what is no message or has no key is a dead letter."""
    schema = tmp_path / "order.desc"
    schema.write_bytes(compile_proto(ORDER, {}, "order.proto"))
    make = message_factory.GetMessageClass(load_message(schema.read_bytes(), "shop.Order", "test"))
    chance = random.Random(4)
    orders = [
        make(customer={"id": chance.randrange(-9, 9)}, tags=[chance.choice("abc")], note=f"{i}") for i in range(300)
    ]
    bad: list[bytes | None] = [b"\xff", None, make(note="x").SerializeToString(), b""]
    source = cluster.make_topic()
    produce(cluster, source, [order.SerializeToString() for order in orders] + bad)
    job = command.job(
        source,
        format="protobuf",
        protobuf_descriptor=schema,
        protobuf_message="shop.Order",
        sorts=[f"customer.id:desc,tags[0]={source}-sorted"],
    )
    done = command.run(job)
    assert done.status == 0, done.err
    found = [make.FromString(record.value or b"") for record in cluster.read(f"{source}-sorted")]
    assert sorted(order.note for order in found) == sorted(order.note for order in orders)
    keys = [(-order.customer.id, order.tags[0]) for order in found]
    assert keys == sorted(keys)
    letters = cluster.read(job.dead_letters)
    reasons = sorted(dict(r.headers)["__connect.errors.exception.message"] or b"" for r in letters)
    missing = b"column customer.id is missing"
    assert reasons == [missing, missing, b"is no Order of Protobuf (Wire format was corrupt): 'ff'", b"null value"]
    facts = cluster.ledger(job).runs[1].format
    assert (facts["name"], facts["columns"], facts["message"]) == (
        "protobuf",
        "customer.id:int,tags[0]:text",
        "shop.Order",
    )
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "no difference" in checked.out
    assert "not verifiable:" not in checked.out + checked.err
    schema.write_bytes(compile_proto(ORDER.replace("note = 3", "note = 4"), {}, "order.proto"))
    changed = command.run(job.model_validate(job.model_dump()))
    assert changed.status == 2
    assert "has schema" in changed.err


def test_settings_that_do_not_fit(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """What the schema lacks is one line and exit status 2, before anything is written."""
    schema = tmp_path / "order.desc"
    schema.write_bytes(compile_proto(ORDER, {}, "order.proto"))
    source = cluster.make_topic()
    fields = {"format": "protobuf", "protobuf_descriptor": schema, "protobuf_message": "shop.Order"}
    for over, error in (
        ({"sorts": [f"customer.idd={source}-s"]}, "the fields of shop.Customer are id"),
        ({"sorts": [f"note={source}-s"], "protobuf_message": "shop.Ordr"}, "has no message 'shop.Ordr'"),
    ):
        refused = command.run(command.job(source, **(fields | over)))
        assert (refused.status, error in refused.err) == (2, True), refused.err
        assert len(refused.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"protobuf_message": None}, "or --protobuf-descriptor and --protobuf-message"),
        ({"protobuf_descriptor": "/no/such.desc"}, "cannot be read"),
        ({"format": "csv"}, "is for --format protobuf"),
    ],
)
def test_settings_that_are_not_whole(command: Command, tmp_path: Path, over: dict[str, object], error: str) -> None:
    """Half of the settings, an absent file or another format are refused."""
    schema = tmp_path / "order.desc"
    schema.write_bytes(b"x")
    fields = {"format": "protobuf", "protobuf_descriptor": schema, "protobuf_message": "M", "sorts": ["id"]}
    with pytest.raises(ValueError, match=error):
        command.job("t", **(fields | over))
