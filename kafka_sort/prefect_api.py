"""Checks of Prefect's API before any work: an address in the settings that does not serve is reported in one line."""

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kafka_sort.shared_server import PrefectServerError
from tasks.errors import SettingsError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_CONNECT_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 10.0
_WITHOUT: Final = "without PREFECT_API_URL the command starts a server of its own"


def check_form(url: str) -> None:
    """Raise SettingsError unless the address has the form that Prefect uses."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(
            f"PREFECT_API_URL={hide_password(url)} is no address of Prefect: write it as "
            f"http://HOST:4200/api; {_WITHOUT}"
        )


def check_api(url: str) -> None:
    """Raise PrefectServerError unless Prefect's API answers there, lets this process in, and fits its version."""
    import httpx
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    shown = f"PREFECT_API_URL {hide_password(url)}"
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), _make_client() as client:
            theirs = _ask_version(client)
    except httpx.HTTPStatusError as error:
        raise PrefectServerError(f"{shown}: {_refusal(error.response.status_code)}") from error
    except (httpx.HTTPError, OSError) as error:
        raise PrefectServerError(
            f"{shown} cannot be reached ({str(error) or type(error).__name__}): start that server, or "
            f"correct the address; {_WITHOUT}"
        ) from error
    except ValueError as error:
        # Something else than JSON came back: a web page, or the answer of another server.
        raise PrefectServerError(f"{shown} does not answer as Prefect's API does: {_form(url)}") from error
    if theirs is not None:
        _check_version(shown, theirs)


def _make_client() -> "SyncPrefectClient":
    import httpx
    from prefect.client.orchestration import get_client

    timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    try:
        return get_client(httpx_settings={"timeout": timeout}, sync_client=True)
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise SettingsError(
            "Prefect's client cannot use the proxies or certificates that the environment names "
            f"({str(error).partition('. ')[0]}): correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY or "
            "PREFECT_API_SSL_CERT_FILE"
        ) from error


def _ask_version(client: "SyncPrefectClient") -> object:
    """Return the server's version; None for Prefect Cloud, which fits all."""
    from prefect.client.base import ServerType

    if client.server_type is ServerType.CLOUD:
        client.read_flows(limit=1)
        return None
    return client.api_version()


def hide_password(url: str) -> str:
    """Return the address without the part before its @."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _refusal(status: int) -> str:
    if status in {401, 403}:
        return (
            f"it refuses this client (status {status}): set PREFECT_API_AUTH_STRING as that server has it, or "
            "PREFECT_API_KEY in Prefect Cloud"
        )
    return (
        f"no Prefect API is there (status {status}): the address ends in /api, as in http://HOST:4200/api; {_WITHOUT}"
    )


def _form(url: str) -> str:
    if urlsplit(url).path.rstrip("/").endswith("/api"):
        return f"correct the address; {_WITHOUT}"
    return f"the address ends in /api, as in {hide_password(url).rstrip('/')}/api; {_WITHOUT}"


def _check_version(shown: str, theirs: object) -> None:
    import prefect

    ours = prefect.__version__
    if str(theirs).partition(".")[0] != ours.partition(".")[0]:
        raise PrefectServerError(
            f"{shown} is a server of Prefect {theirs}, and this is Prefect {ours}: their first numbers must be equal; "
            f"{_WITHOUT}"
        )
