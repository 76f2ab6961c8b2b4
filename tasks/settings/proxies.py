"""The proxies in the environment. Guarantee: this machine is never reached through one."""

import os
import urllib.request
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_NAMES: Final = ("http_proxy", "https_proxy", "all_proxy")
_BYPASSED: Final = ("127.0.0.1", "localhost", "::1")


def is_loopback(address: str) -> bool:
    """Whether the host of an address, HOST:PORT or a URL, is this machine, by its text."""
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        number = ip_address(host)
    except ValueError:
        return False
    # Clients often use 0.0.0.0 for a server that listens on it.
    return number.is_loopback or number.is_unspecified


def bypass_proxies(address: str) -> None:
    """Take this machine, and the address if it is on it, off the proxies of this process and of its children.

    All other hosts keep their proxies. httpx, websockets and urllib prefer the lower-case variable if both are set.
    """
    if not urllib.request.getproxies():
        return
    # httpx takes no brackets, not even where it would use no proxy.
    named = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")).split(",")
    hosts = [host.strip(" []") for host in named if host.strip()]
    also = [urlsplit(address).hostname or ""] if is_loopback(address) else []
    hosts += [host for host in (*_BYPASSED, *also) if host and host not in hosts]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
    if also:
        _drop_unusable()


def _drop_unusable() -> None:
    """Remove the proxies that httpx does not know: it refuses them even if it would not use them."""
    usable = {"http", "https", *(("socks5", "socks5h") if find_spec("socksio") else ())}
    for name in (*_NAMES, *map(str.upper, _NAMES)):
        scheme, separator, _ = os.environ.get(name, "").partition("://")
        if separator and scheme.lower() not in usable:
            del os.environ[name]
