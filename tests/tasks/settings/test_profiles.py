"""Profiles: a name among a flow's parameters, and the connection where the flow runs."""

from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.settings.connection import Connection, current_connection, use_connection, use_profile


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KAFKA_SORT_PROFILES", str(tmp_path))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setenv("KAFKA_SORT_ALLOW_PLAINTEXT", "1")
    return tmp_path


def test_a_profile_is_a_file_of_properties(folder: Path) -> None:
    """It stands for the whole connection: an address in the environment does not override it."""
    file = folder / "east.properties"
    file.touch(0o600)
    file.write_text("# ours\nbootstrap.servers=east:9093\nsasl.password=secret\n")
    with use_profile("east"):
        connection = current_connection()
    assert connection == Connection("east:9093", {"sasl.password": "secret"})
    assert "secret" not in repr(connection)


def test_without_a_name(folder: Path) -> None:
    """Without a name, the connection is that of the process or of the environment."""
    with use_profile(None):
        assert current_connection().bootstrap_servers == "elsewhere:9092"
    with use_connection(Connection("here:9092")), use_profile(None):
        assert current_connection().bootstrap_servers == "here:9092"


def test_no_such_profile(folder: Path) -> None:
    """The error names the file."""
    with pytest.raises(SettingsError, match=r"west\.properties"), use_profile("west"):
        pass


def test_what_cannot_be_set(folder: Path) -> None:
    """A profile cannot set what exactly-once needs."""
    (folder / "loose.properties").write_text("acks=0\n")
    with pytest.raises(SettingsError, match="acks cannot be set"), use_profile("loose"):
        pass
