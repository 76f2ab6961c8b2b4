"""docs/reading.md: each command and each program of the page does what the page says, with topics of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest

from tasks.broker.embedded import EmbeddedBroker
from tasks.settings.job import Job
from tests.cluster import Cluster, Record
from tests.deploy.test_stack import program
from tests.documents import text_of
from tests.postgres import ask, serve_postgres
from tests.stages import run_once

pytestmark = pytest.mark.slow

JOBS = ("orders", "customers", "events")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```\n", text_of("docs/reading.md"), re.MULTILINE | re.DOTALL)
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]
COMMANDS = [line for kind, block in BLOCKS if kind in {"", "psql"} for line in block.splitlines()]
# Order, customer, what: 600 customers with some orders each; the page asks for 4711 and for 4000 to 4999.
ORDERS = [(n * 37 % 1200, 4200 + n * 17 % 600, f'"it, {n}"') for n in range(1200)]
EVENTS = [Record(b'{"a": "x, %d"}' % n, b"k%d" % (n % 7), partition=n % 7 % 2) for n in range(50)]
EVENTS.append(Record(None, b"k0"))


@dataclass(frozen=True)
class Shop:
    """The topics that the page names, each with a suffix of its own."""

    cluster: Cluster
    suffix: str

    def make(self, name: str, records: list[Record], folder: Path, **settings: Any) -> None:
        """Make a sorted topic, by two runs."""
        source = self.cluster.make_topic(2, name=f"{name}-{self.suffix}")
        sorts = [f"{sort}={source}-by-{output}" for output, sort in settings.pop("by").items()]
        given = {"workdir": folder, "session_timeout": 1.5, **settings}
        job = Job.model_validate({"source_topic": source, "sorts": sorts, **given})
        half = len(records) // 2
        for part in (records[:half], records[half:]):
            self.cluster.produce_records(source, part)
            run_once(self.cluster, job, folder)

    def named(self, text: str) -> str:
        """Put the names of these topics in the place of the page's."""
        names = "|".join(JOBS)
        return re.sub(rf'(?<=["\s])({names})(?=["-]|\s--|\s[0-9])', rf"\1-{self.suffix}", text)

    def find(self, words: str) -> str:
        (program,) = (self.named(text) for text in PROGRAMS if words in text)
        return program.replace("localhost:9092", self.cluster.bootstrap_servers)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "KAFKA_BOOTSTRAP_SERVERS": self.cluster.bootstrap_servers}


def row(order: tuple[int, int, str]) -> bytes:
    return "{},{},{}".format(*order).encode()


@pytest.fixture(scope="module")
def shop(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made, folder = Shop(Cluster(broker.bootstrap_servers), uuid4().hex[:6]), tmp_path_factory.mktemp("shop")
    # Ten orders share a record key, in one partition.
    orders = [Record(row(order), b"o%d" % (order[0] // 10), partition=order[0] // 10 % 2) for order in ORDERS]
    by = {"customer": "customer", "order": "order", "key": "@key"}
    made.make("orders", orders, folder, columns="order:int,customer:int,what", by=by)
    customers = [Record(b"%d,c%d" % (n, n), partition=n % 2) for n in range(4300, 5000)]
    made.make("customers", customers, folder, columns="id:int,name", by={"id": "id"})
    made.make("events", EVENTS, folder, format="none", by={"key": "@key"})
    return made


@pytest.fixture
def at(shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shop:
    """Stand in an empty folder, with the broker's address in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", shop.cluster.bootstrap_servers)
    return shop


def by_customer(first: int, last: int) -> list[bytes]:
    """Return the orders of these customers by customer, and then as they were sent to each partition, run by run."""
    half = len(ORDERS) // 2
    found = [
        (order[1], place // half, order[0] // 10 % 2, place)
        for place, order in enumerate(ORDERS)
        if first <= order[1] <= last
    ]
    return [row(ORDERS[place]) for *_, place in sorted(found)]


def test_the_page_is_covered() -> None:
    """Each program and each command of the page has its test below."""
    assert len(PROGRAMS) == 4
    assert len(COMMANDS) == 4


def test_the_first_commands(at: Shop) -> None:
    """A key and a range by `get` and `read`."""
    wanted = [by_customer(4711, 4711), by_customer(4000, 4999)]
    assert all(wanted)
    for line, values in zip(COMMANDS[:2], wanted, strict=True):
        command = at.named(line) + ("" if "--output" in line else " --output raw")
        done = subprocess.run(["bash", "-c", command], env=at.environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.splitlines() == values


def test_the_first_program(at: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Look-up, range and table."""
    names: dict[str, Any] = {}
    exec(at.find("for record in orders.get(4711)"), names)
    lines = capsys.readouterr().out.splitlines()
    one, part = by_customer(4711, 4711), by_customer(4000, 4999)
    assert [line.rsplit(" ", 2)[0] for line in lines[: len(one)]] == [str(value) for value in one]
    assert [line.partition(" ")[2] for line in lines[len(one) :]] == [str(value) for value in part]
    assert names["table"].column("value").to_pylist() == by_customer(0, 10_000)


def test_the_join(at: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Each order with its customer, and those without one with null."""
    exec(at.find("merge_join(orders, customers"), {})
    pairs = [pair for line in capsys.readouterr().out.splitlines() for pair in eval(line)]
    names = {n: b"%d,c%d" % (n, n) for n in range(4300, 5000)}
    assert [pair["left_value"] for pair in pairs] == by_customer(0, 10_000)
    partners = [names.get(int(pair["left_value"].split(b",")[1])) for pair in pairs]
    assert [pair["right_value"] for pair in pairs] == partners
    assert None in partners


def test_duckdb(at: Shop) -> None:
    """The table holds the values in the order of the sort, and their times."""
    try:
        exec(at.find("import duckdb"), {})
        found = duckdb.execute("SELECT value, timestamp FROM orders").fetchall()
    finally:
        duckdb.execute("DROP TABLE IF EXISTS orders")
    assert [value.encode() for value, _ in found] == [row(order) for order in sorted(ORDERS)]
    assert all(time > 0 for _, time in found)


def test_rocksdb(at: Shop, tmp_path: Path) -> None:
    """The file is taken into a database, which then has the newest value of each key."""
    rocksdict = pytest.importorskip("rocksdict", reason="rocksdict is not installed (pip install rocksdict)")
    exec(at.find("import Options, SstFileWriter"), {})
    newest = {b"o%d" % (order[0] // 10): row(order) for order in ORDERS}
    database = rocksdict.Rdict(str(tmp_path / "db"), rocksdict.Options(raw_mode=True))
    database.ingest_external_file([str(tmp_path / "orders.sst")])
    assert dict(database.items()) == newest
    assert list(database.keys()) == sorted(newest)
    database.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    with serve_postgres() as environment:
        made = "CREATE TABLE orders (id bigint, customer bigint, what text)"
        (events,) = re.findall(r"`(CREATE TABLE events [^`]*)`", text_of("docs/reading.md"))
        for statement in (made, events):
            assert ask(program("psql"), statement, environment).returncode == 0
        yield environment


def load(at: Shop, postgres: dict[str, str], number: int, path: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a load of the page; `path`: a folder where `kafka-sort` is looked for first."""
    environment = at.environment | postgres
    environment["PATH"] = path + environment["PATH"]
    line = at.named(COMMANDS[2:][number])
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)


def count(postgres: dict[str, str], table: str) -> int:
    return int(ask(program("psql"), f"SELECT count(*) FROM {table}", postgres).stdout)


def test_postgres(at: Shop, postgres: dict[str, str]) -> None:
    """Rows of CSV become columns; keys and values of any kind become texts, and null stays null."""
    for number in range(2):
        done = load(at, postgres, number)
        assert (done.returncode, done.stderr) == (0, ""), done
    psql = program("psql")
    stored = ask(psql, "SELECT id, customer, what FROM orders ORDER BY ctid", postgres).stdout.splitlines()
    assert stored == ["{}|{}|{}".format(n, c, what.strip('"')) for n, c, what in sorted(ORDERS)]
    asked = "SELECT key, coalesce(value, 'NULL') FROM events ORDER BY ctid"
    events = ask(psql, asked, postgres).stdout.splitlines()
    assert sorted(events) == sorted(f"{(r.key or b'').decode()}|{(r.value or b'NULL').decode()}" for r in EVENTS)
    assert [line.split("|")[0] for line in events] == sorted(line.split("|")[0] for line in events)


def test_a_load_that_fails_in_the_middle(at: Shop, postgres: dict[str, str], tmp_path: Path) -> None:
    """The records before the error are not in the table."""
    script = tmp_path / "kafka-sort"
    script.write_text("#!/bin/sh\necho '-1,-1,x'\nexit 1\n")
    script.chmod(0o755)
    before = count(postgres, "orders")
    done = load(at, postgres, 0, f"{tmp_path}:")
    assert done.returncode != 0
    assert "exit code 1" in done.stderr
    assert count(postgres, "orders") == before
