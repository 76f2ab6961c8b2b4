"""A merge beside one sort of the same records: `kafka-sort merge` of K runs, and `kafka-sort sort` of all at once.

    python -m bench.merging [--records 8000000] [--runs 8] [--rounds 3] [--memory-limit 2GB]

Both take turns, on topics of their own; seconds of the stages are those of the run, and CPU is that of the command, its
start included.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks.broker.embedded import EmbeddedBroker

COMMAND = Path(sys.executable).with_name("kafka-sort")
SORTS = ("id", "name", "continent")


def run(bootstrap: str, command: str, *flags: str) -> dict[str, object]:
    """Run a command; return what it printed, with its wall time and its CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    made = subprocess.run(
        [COMMAND, command, "--bootstrap-servers", bootstrap, "--quiet", *flags],
        check=True,
        capture_output=True,
        text=True,
    )
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    facts = json.loads(made.stdout) if made.stdout.startswith("{") else {}
    return {**facts, "wall": round(wall, 1), "cpu": round(cpu, 1)}


def show(what: str, done: dict[str, object]) -> None:
    stages = done["seconds"]
    print(f"{what:18} wall {done['wall']} s, CPU {done['cpu']} s, stages {stages}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=8_000_000)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", default="2GB")
    arguments = parser.parse_args()
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as work:
        bootstrap = broker.bootstrap_servers
        run(bootstrap, "generate", "--records", str(arguments.records), "--topic", "people")
        for number in range(arguments.rounds):
            limits = ("--workdir", work, "--memory-limit", arguments.memory_limit, "--output", "json")
            job: tuple[str, ...] = ()
            for name, most in (("once", arguments.records), ("parts", arguments.records // arguments.runs)):
                sorts = [f"--sort={by}=r{number}-{name}-{by}" for by in SORTS]
                job = ("--source-topic", "people", "--job-name", f"r{number}-{name}", *limits)
                letters = ("--dead-letter-topic", f"r{number}-{name}-letters", "--max-records", str(most))
                for _ in range(arguments.records // most):
                    done = run(bootstrap, "sort", *job, *sorts, *letters)
                if name == "once":
                    show("sort at once", done)
            show(f"merge of {arguments.runs} runs", run(bootstrap, "merge", *job))


if __name__ == "__main__":
    main()
