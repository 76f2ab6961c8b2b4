"""Dask's scheduler in the settings: addresses, networks without encryption, certificates, the extra."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tasks.errors import SettingsError
from tasks.settings.connection import Connection
from tasks.settings.job import Job, load_job
from tasks.settings.scheduler import CERTIFICATES, SCHEDULER, certificate_files, check_runner
from tasks.settings.streaming import check_streamable

ADDRESSES = ("tcp://127.0.0.1:8786", "tls://scheduler.example:8786", "tcp://[::1]:8786", "tls://10.0.0.1:1")
NO_ADDRESSES = (
    "127.0.0.1:8786",
    "http://scheduler:8786",
    "tls://scheduler",
    "tls://:8786",
    "tls://scheduler:0",
    "tls://scheduler:70000",
    "tls://user:secret@scheduler:8786",
    "tls://scheduler:8786/path",
    "tls://scheduler:8786?a=b",
    "tls://[scheduler:8786",
    "",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(address: str) -> None:
    """Dask's own form is taken, with its protocol."""
    assert Job(runner="dask", scheduler=address).scheduler == address


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address(address: str) -> None:
    """The error shows the form."""
    with pytest.raises(SettingsError, match=r"scheduler \(--scheduler\): .* write it as tls://scheduler.example:8786"):
        load_job({"runner": "dask", "scheduler": address}, {})


def test_an_address_without_dask() -> None:
    """A scheduler that would not be used is refused."""
    with pytest.raises(SettingsError, match=r"scheduler \(--scheduler\): is for --runner dask"):
        load_job({"scheduler": ADDRESSES[0]}, {})


def test_the_address_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow on Dask that names no scheduler takes that of its process; another address, and threads, are as given."""
    monkeypatch.setenv(SCHEDULER, ADDRESSES[1])
    for given in ({}, {"scheduler": None}):
        assert Job.model_validate({"runner": "dask", **given}).scheduler == ADDRESSES[1]
    assert Job(runner="dask", scheduler=ADDRESSES[0]).scheduler == ADDRESSES[0]
    assert Job().scheduler is None
    monkeypatch.setenv(SCHEDULER, "")
    assert Job(runner="dask").scheduler is None
    monkeypatch.setenv(SCHEDULER, "here")
    with pytest.raises(ValueError, match="write it as tls://"):
        Job(runner="dask")


def check(scheduler: str | None, runner: str = "dask", **connection: Any) -> None:
    check_runner(runner, scheduler, Connection(**connection))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://localhost:1"])
def test_this_machine_needs_no_certificates(address: str) -> None:
    """Loopback crosses no network."""
    check(address)


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:1", "tcp://scheduler:1", "tcp://127.0.0.1.example:1"])
def test_another_machine_needs_certificates(address: str) -> None:
    """What Dask sends is code: a network without encryption must be permitted by name, as for Kafka."""
    with pytest.raises(
        SettingsError, match=r"is not on this machine.*give tls://, or permit it with --allow-plaintext"
    ):
        check(address)
    check(address, allow_plaintext=True)


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three files are named, and the key is its owner's alone; plaintext for Kafka does not replace them."""
    with pytest.raises(SettingsError, match=f"set {', '.join(CERTIFICATES.values())} to files"):
        check("tls://scheduler:1", allow_plaintext=True)
    files = {variable: tmp_path / variable for variable in CERTIFICATES.values()}
    for variable, file in files.items():
        monkeypatch.setenv(variable, str(file))
    with pytest.raises(SettingsError, match="CA_LOCATION .*: it cannot be read"):
        check("tls://scheduler:1")
    for file in files.values():
        file.touch(0o644)
    with pytest.raises(SettingsError, match=r"has mode 0644.*it is KAFKA_SORT_SCHEDULER_SSL_KEY_LOCATION"):
        check("tls://scheduler:1")
    files[CERTIFICATES["tls_client_key"]].chmod(0o600)
    check("tls://scheduler:1")
    assert certificate_files() == {name: str(files[variable]) for name, variable in CERTIFICATES.items()}


@pytest.mark.parametrize("absent", ["prefect_dask", "distributed"])
def test_the_extra_is_named(absent: str) -> None:
    """Without Dask the error says what to install; threads need none of it."""

    def find(name: str) -> object:
        return None if name == absent else object()

    with patch("tasks.settings.scheduler.find_spec", find):
        check(None, "threads")
        with pytest.raises(SettingsError, match=r"pip install 'kafka-sorting-pipeline\[dask\]'"):
            check(None)


def test_a_stream_has_no_workers() -> None:
    """A batch is shorter than the start of a worker."""
    with pytest.raises(SettingsError, match="--runner dask is for kafka-sort sort"):
        check_streamable(Job(runner="dask"))
