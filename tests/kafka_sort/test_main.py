"""The command's process: settings that are made before the libraries that read them are loaded."""

import os
import platform
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kafka_sort.main import cli
from tests.cluster import Cluster

# The command, which also prints at its end which allocator Arrow has, and how many heaps the C library.
PROGRAM = """
import atexit, ctypes, sys, tempfile, threading
from pathlib import Path
from kafka_sort.process import main

def tell():
    together = threading.Barrier(8)
    threads = [threading.Thread(target=together.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    with tempfile.NamedTemporaryFile() as file:
        stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        heaps = Path(file.name).read_text().count("<heap nr=")
    print(sys.modules["pyarrow"].default_memory_pool().backend_name, heaps)

assert "pyarrow" not in sys.modules
atexit.register(tell)
main()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heaps of another C library are not limited")
@pytest.mark.parametrize(
    ("chosen", "told"),
    [({}, "system 2"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc", "MALLOC_ARENA_MAX": "4"}, "mimalloc 4")],
)
def test_a_stream_has_memory_that_is_given_back(
    chosen: dict[str, str], told: str, cluster: Cluster, prefect_server: str
) -> None:
    """A stream allocates with the C library, from two heaps; variables of the user's are left as they are."""
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
    assert done.stdout.splitlines()[-1] == told, done.stderr


def shown_flags(command: str) -> set[str]:
    """Return the flags that its help lists."""
    shown = CliRunner().invoke(cli, [command, "--help"], terminal_width=200).output
    return set(re.findall(r"^  (?:-\w, )?(--?[A-Za-z-]+)", shown, re.MULTILINE))


def test_the_help_of_verify_lists_what_it_uses() -> None:
    """It takes those of `sort` as well, so that one set of flags fits both."""
    unused = {"--columns", "--end", "--delimiter", "--memory-limit", "--skip-lost", "--append", "--start"}
    assert unused <= shown_flags("sort")
    assert not unused & shown_flags("verify")
    assert {"--runs", "--job", "--job-name", "--workdir", "--request-timeout", "-X"} <= shown_flags("verify")
    taken = {flag for param in cli.commands["verify"].params for flag in param.opts}
    assert shown_flags("sort") - {"--help", "-h", "--dry-run", "--output", "--rewrite"} <= taken


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_takes_debug(command: str) -> None:
    """The traceback of any failure can be had."""
    assert "--debug" in shown_flags(command)
