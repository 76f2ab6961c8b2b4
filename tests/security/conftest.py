"""One broker for the session that demands authentication."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BROKER_PROPERTIES
from tests.security.secure import Secure, Sorter


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    running = Secure(tmp_path_factory.mktemp("secure"), BROKER_PROPERTIES)
    with running.broker:
        running.set_password()
        yield running


@pytest.fixture
def sorter(secure: Secure, prefect_server: str, tmp_path: Path) -> Sorter:
    return Sorter(secure, tmp_path / "work")
