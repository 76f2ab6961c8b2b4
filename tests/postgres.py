"""A Postgres of a test's own, by Debian's programs, on a socket in a folder; tests are skipped where it is absent."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import wait_for
from tests.deploy.test_stack import program


@contextmanager
def serve_postgres() -> Iterator[dict[str, str]]:
    """Start a server; yield the environment by which psql finds it."""
    initdb, postgres, psql = map(program, ("initdb", "postgres", "psql"))
    # The path of a socket is short. Postgres refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data = str(folder / "data")
    how = {"user": user, "group": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([initdb, "-D", data, "-U", "test", "--auth=trust", "-E", "UTF8"], check=True, **how)  # type: ignore[call-overload]
    command = [postgres, "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    server = subprocess.Popen(command, **how)  # type: ignore[call-overload]
    environment = {"PGHOST": str(folder), "PGUSER": "test", "PGDATABASE": "postgres"}
    try:
        wait_for(lambda: ask(psql, "SELECT 1", environment).returncode == 0, 60)
        yield environment
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def ask(psql: str, statement: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a statement; its rows are lines of unaligned text."""
    command = [psql, "-XAtc", statement]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
