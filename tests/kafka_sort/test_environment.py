"""Commands in an environment that is not a person's own: they work, or say in one line what to change."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from kafka_sort.ui import main as show_pages
from tests.cluster import Cluster, assert_sorted, sample_values
from tests.command import Command, flags_of

KAFKA_SORT = str(Path(sys.executable).with_name("kafka-sort"))
# A uid without a name, and without root's rights on files.
NOBODY = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*NOBODY, "true"], check=False, capture_output=True).returncode != 0,
    reason="user namespaces are not permitted here",
)


def run(
    *arguments: str,
    before: tuple[str, ...] = (),
    environment: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the installed command; a variable that is None is unset."""
    changed = {**os.environ, **(environment or {})}
    return subprocess.run(
        [*before, KAFKA_SORT, *arguments],
        env={name: value for name, value in changed.items() if value is not None},
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def shell(line: str) -> tuple[str, ...]:
    """Run a line of shell, and then the command."""
    return ("/bin/sh", "-c", f'{line}; exec "$@"', "sh")


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("kafka-sort: ")
    assert all(word in line for word in words), line


MODULES = ("tasks.py", "flows.py", "tasks/__init__.py", "flows/sort_topic.py")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_the_users_own(tmp_path: Path, name: str) -> None:
    """Our modules come first, even if the user's are on PYTHONPATH."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('not this one')\n")
    code = "import kafka_sort, tasks.errors, flows; print(tasks.__file__)"
    path = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | path, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout).is_relative_to(Path(__file__).parents[2])
    assert run("status", "--help", environment=path).returncode == 0


def test_a_module_called_like_the_command(tmp_path: Path) -> None:
    """The installed command finds its own package before a user's `kafka_sort.py`."""
    (tmp_path / "kafka_sort.py").write_text("raise SystemExit('not this one')\n")
    done = run("status", "--help", environment={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")


@needs_namespaces
def test_no_home_and_no_name() -> None:
    """Commands that only report need neither."""
    done = run(
        "sort",
        "--bootstrap-servers",
        "127.0.0.1:port",
        "--start-timeout",
        "0.2",
        before=NOBODY,
        environment={"HOME": None},
    )
    assert_refused(done, "127.0.0.1:port")


def test_a_working_folder_that_was_deleted(tmp_path: Path) -> None:
    """It is reported before anything uses it."""
    folder = tmp_path / "gone"
    folder.mkdir()
    assert_refused(run("status", before=shell(f"rmdir '{folder}'"), cwd=folder), "working folder")


def test_too_few_files() -> None:
    """The limit is reported before a run, not in the middle of it."""
    assert_refused(run("status", before=shell("ulimit -n 64")), "64 files", "ulimit -n")


@needs_namespaces
def test_folders_that_prefect_cannot_use(tmp_path: Path) -> None:
    """A line says what to do, which Prefect's own errors do not."""
    locked = tmp_path / "locked"
    locked.mkdir(0o500)
    bare = {"HOME": str(locked), "PREFECT_API_URL": None, "PREFECT_HOME": None}
    assert_refused(run("sort", before=NOBODY, environment=bare), str(locked), "PREFECT_HOME")
    unread = tmp_path / "unread"
    unread.mkdir()
    assert_refused(run("sort", before=(*NOBODY, *shell(f"chmod 0 '{unread}'")), cwd=unread), "working folder")
    unread.chmod(0o700)


SURROUNDINGS: dict[str, tuple[tuple[str, ...], dict[str, str | None]]] = {
    "no home, no name": (NOBODY, {"HOME": None}),
    "an empty home": ((), {"HOME": ""}),
    "ASCII": ((), {"PYTHONIOENCODING": "ascii"}),
    "the locale C": ((), {"LC_ALL": "C", "LANG": None, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "warnings are errors": ((), {"PYTHONWARNINGS": "error"}),
    "optimized": ((), {"PYTHONOPTIMIZE": "2"}),
    "other variables of Python": ((), {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONDEVMODE": "1"}),
    "no PATH": ((), {"PATH": ""}),
    "no temporary folder": ((), {"TMPDIR": "/nonexistent"}),
    "a poor terminal": ((), {"TERM": "dumb", "COLUMNS": "10", "NO_COLOR": "1", "TZ": "Mars/Olympus"}),
    "a umask that takes all": ((*NOBODY, *shell("umask 0777")), {}),
    "a umask that takes nothing": (shell("umask 0"), {}),
    "128 files": (shell("ulimit -n 128"), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("before", "environment"), SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_a_run_in_odd_surroundings(
    cluster: Cluster, command: Command, before: tuple[str, ...], environment: dict[str, str | None]
) -> None:
    """A run sorts without a traceback, with names beyond ASCII too."""
    if before[:1] == NOBODY[:1] and needs_namespaces.args[0]:
        pytest.skip("user namespaces are not permitted here")
    source = cluster.make_topic()
    cluster.produce(source, [*sample_values(100), "7,Zoë名,x,y".encode()])
    job = command.job(source)
    flags = ("sort", "--bootstrap-servers", cluster.bootstrap_servers, *flags_of(job))
    done = run(*flags, before=before, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
    assert_sorted(cluster, job)


def test_json_of_a_name_beyond_the_encoding() -> None:
    """Characters that a line cannot hold are escaped as in JSON."""
    code = "from kafka_sort.environment import _print_anything; _print_anything(); print('\"Zoë名😀\\udcff\"')"
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=ascii_only, capture_output=True, text=True, check=True)
    assert done.stdout == '"Zo\\u00eb\\u540d\\ud83d\\ude00\\udcff"\n'


def test_the_pages_need_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wheel has no prefect.yaml: a line says so, before Kafka is started."""
    monkeypatch.setattr("kafka_sort.ui._DEPLOYMENTS", tmp_path / "prefect.yaml")
    assert show_pages(tmp_path) == 2
    assert "need a checkout" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
