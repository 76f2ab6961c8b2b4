"""Files into topics: lines/s of `kafka-sort load` in several forms, beside `kcat -P` of the plain file.

    python -m bench.files [--lines 3000000] [--rounds 3] [--bootstrap-servers HOST:PORT]

All take turns, and the median of the rounds counts. CPU is that of the program alone, in µs a line, its start included.
"""

import argparse
import gzip
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from bench.compare import PARTITIONS, PRODUCE
from tasks.broker.embedded import EmbeddedBroker
from tasks.kafka.clients import make_admin
from tasks.kafka.topics import create_topic
from tasks.people.make import WRITERS, make_people
from tasks.settings.connection import Connection

BLOCK = 100_000
LOAD = f"{Path(sys.executable).with_name('kafka-sort')} load --bootstrap-servers {{bootstrap}} --topic {{output}} "
NAMES = "--columns id,name,address,continent"
FORMS = {
    "kcat -P": PRODUCE.replace("{file}", "{folder}/people.csv"),
    "load": LOAD + "{folder}/people.csv",
    "load, .gz": LOAD + "{folder}/people.csv.gz",
    "load, .zst": LOAD + "{folder}/people.csv.zst",
    "load, all fields quoted": LOAD + "{folder}/quoted.csv",
    "load --key, CSV": f"{LOAD}{NAMES} --key id {{folder}}/people.csv",
    "load, JSON": LOAD + "{folder}/people.json",
    "load --key, JSON": LOAD + "--key id {folder}/people.json",
}


def write_files(folder: Path, lines: int) -> None:
    """Write the sample data, in the forms that are loaded."""
    with (folder / "people.csv").open("wb") as rows, (folder / "people.json").open("wb") as documents:
        for first in range(0, lines, BLOCK):
            people = make_people(1, first, min(BLOCK, lines - first))
            for file, kind in ((rows, "csv"), (documents, "json")):
                file.write(b"\n".join(WRITERS[kind](people).to_pylist()) + b"\n")
    text = (folder / "people.csv").read_bytes()
    (folder / "quoted.csv").write_bytes(b'"' + text[:-1].replace(b",", b'","').replace(b"\n", b'"\n"') + b'"\n')
    (folder / "people.csv.gz").write_bytes(gzip.compress(text, 6))
    (folder / "people.csv.zst").write_bytes(pa.Codec("zstd").compress(text, asbytes=True))


def measure(script: str) -> tuple[float, float]:
    """Run the script; return its seconds, and its CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["bash", "-ec", script], check=True, stdout=subprocess.DEVNULL)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bootstrap-servers")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM")
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (
        nullcontext() if arguments.bootstrap_servers else EmbeddedBroker() as broker,
        tempfile.TemporaryDirectory() as name,
    ):
        bootstrap = broker.bootstrap_servers if broker else arguments.bootstrap_servers
        write_files(Path(name), arguments.lines)
        admin = make_admin(Connection(bootstrap))
        for _ in range(arguments.rounds):
            for form in arguments.forms:
                output = f"bench-files-{uuid4().hex[:6]}"
                create_topic(admin, output, PARTITIONS)
                found[form].append(measure(FORMS[form].format(bootstrap=bootstrap, output=output, folder=name)))
                admin.delete_topics([output])[output].result()
    for form, rounds in found.items():
        seconds, cpu = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(
            f"{form:26} {arguments.lines / seconds:12,.0f} lines/s  {cpu / arguments.lines * 1e6:6.2f} µs·core a line"
        )


if __name__ == "__main__":
    main()
