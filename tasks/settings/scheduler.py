"""The address of Dask's scheduler, and the certificates that reach it.

Guarantee: what Dask sends is code, which the other side runs. So a scheduler that is not on this machine is reached
with certificates alone, unless a network without them was permitted by name.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tasks.errors import SettingsError
from tasks.settings.connection import ALLOW_PLAINTEXT, Connection, check_key_file, is_loopback

# Where the workers are is a fact of the process that runs a flow, as is the address of Kafka.
SCHEDULER: Final = "KAFKA_SORT_SCHEDULER"
_FORM: Final = "write it as tls://scheduler.example:8786, or on this machine as tcp://127.0.0.1:8786"
# Dask's name of a file → the variable that names it.
CERTIFICATES: Final = {
    "tls_ca_file": "KAFKA_SORT_SCHEDULER_SSL_CA_LOCATION",
    "tls_client_cert": "KAFKA_SORT_SCHEDULER_SSL_CERTIFICATE_LOCATION",
    "tls_client_key": "KAFKA_SORT_SCHEDULER_SSL_KEY_LOCATION",
}


def scheduler_of(runner: str, given: str | None) -> str | None:
    """Return the address that was given; on Dask without one, that of this process's environment."""
    if given is not None or runner != "dask":
        return given
    return os.environ.get(SCHEDULER) or None


def check_scheduler_address(address: str) -> str:
    """Return the address; ValueError says what is wrong with it."""
    try:
        parts = urlsplit(address)
        fits = parts.scheme in {"tcp", "tls"} and bool(parts.hostname) and bool(parts.port)
        fits = fits and address == f"{parts.scheme}://{parts.netloc}" and "@" not in address
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{address!r} is no address of a scheduler: {_FORM}")
    return address


def check_runner(runner: str, scheduler: str | None, connection: Connection) -> None:
    """Raise SettingsError if the runner is not installed, or its scheduler would be reached in the clear."""
    if runner != "dask":
        return
    # Prefect's integration brings Dask; both take a second to import.
    if find_spec("prefect_dask") is None or find_spec("distributed") is None:
        raise SettingsError("--runner dask needs Dask: pip install 'kafka-sorting-pipeline[dask]'")
    if scheduler is None:
        return
    scheme, _, place = scheduler.partition("://")
    if scheme == "tls":
        certificate_files()
    elif not is_loopback(place) and not connection.allow_plaintext:
        raise SettingsError(
            f"scheduler {scheduler} is not on this machine, and without TLS anybody on the network between could run "
            "code on both sides: give tls://, or permit it with --allow-plaintext "
            f"({ALLOW_PLAINTEXT}=1)"
        )


def certificate_files(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the files that `tls://` needs, by Dask's names. SettingsError if one is absent, or others read the key."""
    env = os.environ if environment is None else environment
    if missing := [variable for variable in CERTIFICATES.values() if not env.get(variable)]:
        raise SettingsError(
            f"a scheduler at tls:// is reached with certificates: set {', '.join(missing)} to files in PEM form"
        )
    files = {name: env[variable] for name, variable in CERTIFICATES.items()}
    for name, file in files.items():
        if name == "tls_client_key":
            check_key_file(Path(file), CERTIFICATES[name])
        elif not os.access(file, os.R_OK):
            raise SettingsError(f"{CERTIFICATES[name]} {file}: it cannot be read")
    return files
