"""The connection to a schema registry: where its properties come from, and which are refused."""

from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.settings.connection import resolve_connection

USER = "schema.registry.basic.auth.user.info"


def test_properties_come_from_variables_and_the_file(tmp_path: Path) -> None:
    """A variable goes before the file, the prefix goes, and no value is shown."""
    file = tmp_path / "kafka.properties"
    file.write_text(f"{USER}=me:hunter2\nschema.registry.ssl.ca.location=/ca.pem\nclient.id=x\n")
    file.chmod(0o600)
    connection = resolve_connection(config_file=file, environment={})
    assert connection.registry == {"basic.auth.user.info": "me:hunter2", "ssl.ca.location": "/ca.pem"}
    assert connection.properties == {"client.id": "x"}
    assert "hunter2" not in repr(connection)
    variables = {"SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": "you:pass"}
    assert resolve_connection(config_file=file, environment=variables).registry["basic.auth.user.info"] == "you:pass"


def test_a_file_with_credentials_is_private(tmp_path: Path) -> None:
    """A file that others can read is refused, as one with Kafka's password is; a key's file likewise."""
    file, key = tmp_path / "kafka.properties", tmp_path / "key.pem"
    file.write_text(f"{USER}=me:hunter2\n")
    key.write_text("key")
    for path in (file, key):
        path.chmod(0o644)
    with pytest.raises(SettingsError, match=r"has mode 0644.*it holds schema.registry.basic.auth.user.info"):
        resolve_connection(config_file=file, environment={})
    names = {"SCHEMA_REGISTRY_SSL_KEY_LOCATION": str(key), "SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION": str(key)}
    with pytest.raises(SettingsError, match=r"has mode 0644.*it is schema.registry.ssl.key.location"):
        resolve_connection(environment=names)


REFUSED = {
    "schema.registry.url=http://x": "use --schema-registry ADDRESS",
    "schema.registry.nothing=x": "there is no property schema.registry.nothing",
    f"{USER}=hunter2": "is written USER:PASSWORD",
    f"{USER}=a:b schema.registry.bearer.auth.token=t": "give one of them",
    "schema.registry.ssl.key.password=hunter2": "ssl.certificate.location is missing",
}


@pytest.mark.parametrize("properties", REFUSED)
def test_properties_that_are_refused(properties: str) -> None:
    """A property that is none, or does not fit the others, is named without its value."""
    with pytest.raises(SettingsError, match=REFUSED[properties]) as caught:
        resolve_connection(extra=properties.split(), environment={})
    assert "hunter2" not in str(caught.value)
