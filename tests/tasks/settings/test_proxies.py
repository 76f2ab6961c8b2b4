"""This machine is never reached through a proxy; all else is as before."""

import os
import urllib.request

import httpx
import pytest

from tasks.settings.proxies import bypass_proxies, is_loopback

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its first value is set here, so that changes by the test itself are undone as well.
    for name in (*NAMES, *map(str.upper, NAMES)):
        monkeypatch.setenv(name, "")
        os.environ.pop(name)


def direct(url: str) -> bool:
    """Whether both libraries go there without a proxy."""
    with httpx.Client() as client:
        by_httpx = client._transport_for_url(httpx.URL(url)) is client._transport
    return by_httpx and bool(urllib.request.proxy_bypass(httpx.URL(url).netloc.decode()))


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "prefect.localhost", "0.0.0.0"])
def test_this_machine_is_reached_directly(proxy: str, host: str) -> None:
    """Other hosts are reached by the proxy, except for those that the user excluded."""
    os.environ |= {proxy: "http://127.0.0.1:9", "NO_PROXY": "inside.corp, [::1]"}
    bypass_proxies(f"http://{host}:4200/api")
    assert direct(f"http://{host}:4200/api")
    assert direct("http://127.0.0.1:9091")
    assert direct("http://inside.corp/")
    assert not direct("http://example.com/")


def test_another_host_keeps_its_proxy() -> None:
    """A Prefect server on another host is reached as the environment says."""
    os.environ["http_proxy"] = "http://127.0.0.1:9"
    bypass_proxies("http://prefect.corp:4200/api")
    assert not direct("http://prefect.corp:4200/api")


def test_without_proxies_nothing_changes() -> None:
    """An environment without proxies gets no exceptions from them."""
    bypass_proxies("http://127.0.0.1:4200/api")
    assert not any(name in os.environ for name in ("no_proxy", "NO_PROXY"))


def test_a_proxy_that_httpx_cannot_use() -> None:
    """httpx would refuse to make a client at all."""
    os.environ |= {"ALL_PROXY": "socks9://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    bypass_proxies("http://127.0.0.1:4200/api")
    assert direct("http://127.0.0.1:4200/api")
    assert os.environ["http_proxy"]


@pytest.mark.parametrize("address", ["127.0.0.1:9091", "http://[::1]:9091", "localhost", "http://0.0.0.0:4200/api"])
def test_what_is_this_machine(address: str) -> None:
    """Loopback addresses and names are recognized, with or without scheme and port."""
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1:9091", "http://example.com/127.0.0.1", "localhost.corp", "", "http://[bad"]
)
def test_what_is_not_this_machine(address: str) -> None:
    """Other hosts are not, and neither is text that is no address."""
    assert not is_loopback(address)
