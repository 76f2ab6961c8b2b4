"""The process that a command is: what is settled before the libraries are loaded that read it."""

import os
import subprocess
import sys

import pytest

from tests.cluster import Cluster

# As the command, but for what it says at its end: which allocator Arrow has.
PROGRAM = """
import atexit, sys
from kafka_sort.main import main
assert "pyarrow" not in sys.modules
atexit.register(lambda: print(sys.modules["pyarrow"].default_memory_pool().backend_name))
main()
"""


@pytest.mark.parametrize(
    ("chosen", "backend"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")]
)
def test_a_stream_has_memory_that_is_given_back(
    chosen: dict[str, str], backend: str, cluster: Cluster, prefect_server: str
) -> None:
    arguments = ["stream", "--source-topic", "absent", "--bootstrap-servers", cluster.bootstrap_servers]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | {"PREFECT_API_URL": prefect_server} | chosen,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines()[-1] == backend, done.stderr
