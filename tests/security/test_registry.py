"""A schema registry by TLS with an authority of one's own, and one that wants a client's certificate."""

import ssl
from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.formats.registry import check_format
from tasks.formats.schema_registry import RegistryRefusedError, RegistryUnavailableError, SchemaRegistry
from tasks.settings.connection import resolve_connection, use_connection
from tasks.settings.job import Job
from tests.registry_server import serve_registry
from tests.security.certificates import Issued, issue, make_authority

pytest.importorskip("confluent_kafka.schema_registry")


@pytest.fixture
def authority(tmp_path: Path) -> Issued:
    return make_authority(tmp_path, "authority")


def server_context(folder: Path, authority: Issued, *, mutual: bool = False) -> ssl.SSLContext:
    server = issue(folder, "registry", authority, ("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.path, server.key_path)
    if mutual:
        context.load_verify_locations(authority.path)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_an_authority_of_ones_own(tmp_path: Path, authority: Issued) -> None:
    """The registry's certificate is checked: by its authority it is trusted, by others never."""
    other = make_authority(tmp_path, "other")
    with serve_registry(server_context(tmp_path, authority)) as registry:
        SchemaRegistry(registry.address, {"ssl.ca.location": str(authority.path)}).check()
        asked = len(registry.asked)
        for trusted in ({}, {"ssl.ca.location": str(other.path)}):
            with pytest.raises(RegistryUnavailableError, match="(?i)certificate"):
                SchemaRegistry(registry.address, trusted).check()
        assert len(registry.asked) == asked == 1


def test_a_clients_certificate(tmp_path: Path, authority: Issued) -> None:
    """A registry that wants one answers those who have it; variables say where it is."""
    client = issue(tmp_path, "client", authority)
    with serve_registry(server_context(tmp_path, authority, mutual=True)) as registry:
        job = Job(source_topic="s", format="avro", schema_registry=registry.address, sorts=["id:int"])
        variables = {"SCHEMA_REGISTRY_SSL_CA_LOCATION": str(authority.path)}
        with use_connection(resolve_connection(environment=variables)), pytest.raises(RegistryUnavailableError):
            check_format(job)
        variables |= {
            "SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION": str(client.path),
            "SCHEMA_REGISTRY_SSL_KEY_LOCATION": str(client.key_path),
        }
        assert not registry.asked
        with use_connection(resolve_connection(environment=variables)):
            check_format(job)
        assert len(registry.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_over_tls_that_are_refused(tmp_path: Path, authority: Issued, status: int) -> None:
    """The check before work ends with exit status 2, and shows no secret."""
    with serve_registry(server_context(tmp_path, authority)) as registry:
        registry.faults = [status]
        variables = {
            "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(authority.path),
            "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": "me:hunter2",
        }
        job = Job(source_topic="s", format="protobuf", schema_registry=registry.address, sorts=["id:int"])
        with use_connection(resolve_connection(environment=variables)), pytest.raises(RegistryRefusedError) as caught:
            check_format(job)
    assert caught.value.exit_code == 2
    assert "hunter2" not in str(caught.value)


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there, or holds no certificate, is an error of the settings."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("x")
    for path in (tmp_path / "absent.pem", wrong):
        with pytest.raises(SettingsError, match="the certificates of schema registry"):
            SchemaRegistry("https://127.0.0.1:1", {"ssl.ca.location": str(path)})
