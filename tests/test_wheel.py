"""The project's releases: the wheel and the source distribution are whole, and the wheel works by itself."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.cluster import Cluster, assert_sorted, sample_values
from tests.command import Command, flags_of

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "kafka_sort", "tasks")
LEFT_OUT = [".git", *(Path(line).name for line in (ROOT / ".gitignore").read_text().splitlines())]
OFFLINE = ("--no-index", "--no-deps")


def run(*command: str | Path, cwd: Path) -> str:
    """Return the command's output; PYTHONPATH would let the checkout back in."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, since setuptools leaves files where it builds."""
    folder = tmp_path_factory.mktemp("built") / "source"
    return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT)))


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    build = "from setuptools import build_meta; print(build_meta.build_sdist('../dist'))"
    return source.parent / "dist" / run(sys.executable, "-c", build, cwd=source).split()[-1]


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """The wheel, built from the source distribution, by the build backend of the lock."""
    folder = sdist.parent
    run(sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation", "-w", folder, sdist, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The commands of a fresh environment with the wheel in it.

    Its dependencies are those of this environment, by a path. Python does not read such a path for further ones, and so
    the checkout, which is installed by one, stays out of sight.
    """
    home = wheel.parent / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=wheel.parent)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *OFFLINE, wheel, cwd=wheel.parent)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", code, cwd=wheel.parent).strip())
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(paths)))
    return python.parent


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_source_distribution_is_whole(source: Path, sdist: Path) -> None:
    """It has all files of a checkout, so that `make setup` and the tests work in it."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert files(source) - names == set()


def test_the_pythons_are_the_same_everywhere() -> None:
    """The classifiers name the Pythons that `requires-python` permits, and the workflow checks each of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    language = "Programming Language :: Python :: 3."
    named = [name.removeprefix(language) for name in project["classifiers"] if name.startswith(language)]
    assert project["requires-python"] == f">=3.{named[0]},<3.{int(named[-1]) + 1}"
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["check"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in named]


def test_the_wheel_is_whole(source: Path, wheel: Path) -> None:
    """It holds each file of the packages, the command and the licence, and nothing else: no tests, no benchmark."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    described = {name for name in names if ".dist-info/" in name}
    packaged = {name for name in files(source) if name.partition("/")[0] in PACKAGES}
    assert names - described == packaged | {"kafka_sort_command.py"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert any(name.endswith("licenses/LICENSE") for name in described)


@pytest.mark.slow
def test_the_wheel_works_outside_of_a_checkout(
    cluster: Cluster, command: Command, installed: Path, tmp_path: Path
) -> None:
    """The wheel uses its own packages in a fresh environment, and sorts a topic from any folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = f"import {', '.join(PACKAGES)}; print({', '.join(f'{name}.__file__' for name in PACKAGES)})"
    for path in run(installed / "python", "-c", where, cwd=elsewhere).split():
        assert Path(path).is_relative_to(installed.parent)
    assert "Commands:" in run(installed / "kafka-sort", "--help", cwd=elsewhere)
    topic = cluster.make_topic()
    cluster.produce(topic, sample_values(1000))
    job = command.job(topic)
    servers = ("--bootstrap-servers", cluster.bootstrap_servers)
    assert "run 1" in run(installed / "kafka-sort", "sort", *servers, *flags_of(job), cwd=elsewhere)
    assert_sorted(cluster, job)
