"""Preloaded by workers of tests: each dump waits at its first chunk until the run stops, and leaves a file."""

import os
from pathlib import Path

import tasks.dump
from tasks.run_context import current_run

FOLDER = "KAFKA_SORT_TEST_HELD"


def hold(name: str) -> None:
    if name != "before-dump-chunk":
        return
    held = Path(os.environ[FOLDER]) / f"held-{os.getpid()}"
    held.touch()
    try:
        while True:
            current_run().stop.wait(0.05)
    finally:
        held.rename(held.with_name(f"ended-{os.getpid()}"))


def dask_setup(_: object) -> None:
    """Hold the dumps of this worker: Dask calls this, and whoever imports the file is not concerned."""
    tasks.dump.reach = hold  # type: ignore[attr-defined]  # the name that the stage calls
