"""A headless Chromium, by its DevTools protocol: open a page, wait for its text, press, take a picture."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--proxy-server=direct://",
    # Prefect's pages would ask for fonts and avatars elsewhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)


class Page:
    """The browser's one page."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    @property
    def text(self) -> str:
        """All text that a person can read, texts of fields included."""
        fields = "[...document.querySelectorAll('input,textarea')].map(e => e.value).join('\\n')"
        return str(self.evaluate(f"document.body ? document.body.innerText + '\\n' + {fields} : ''"))

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str, *expected: str) -> None:
        self.call("Page.navigate", url=address)
        self.expect(*expected)

    def expect(self, *expected: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while missing := [text for text in expected if text not in self.text]:
            assert time.monotonic() < deadline, f"not on the page: {missing}\n{self.text}"
            time.sleep(0.3)

    def press(self, label: str) -> None:
        """The first button, tab or link with this text."""
        script = f"""(() => {{
            const all = [...document.querySelectorAll('button,a,[role=tab]')];
            const found = all.find(e => e.innerText.trim() === {json.dumps(label)});
            if (!found) return false;
            for (const kind of ['pointerdown', 'mousedown', 'pointerup', 'mouseup', 'click'])
                found.dispatchEvent(new MouseEvent(kind, {{bubbles: true, button: 0}}));
            return true;
        }})()"""
        deadline = time.monotonic() + 60
        while not self.evaluate(script):
            assert time.monotonic() < deadline, f"there is no {label}\n{self.text}"
            time.sleep(0.3)

    def picture(self, path: Path) -> None:
        # Charts and fonts settle a little after the text.
        time.sleep(2)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def open_browser(width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """A browser with a profile of its own, which reaches loopback only."""
    assert BROWSER
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [BROWSER, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_find_page(Path(folder)), max_size=None, open_timeout=60, proxy=None) as connection:
                page = Page(connection)
                page.call("Page.enable")
                page.resize(width, height)
                yield page
        finally:
            process.terminate()
            process.wait(30)


def _find_page(profile: Path) -> str:
    """The address that the browser has written into its profile."""
    deadline = time.monotonic() + 90
    while True:
        try:
            port = (profile / "DevToolsActivePort").read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                return str(next(t for t in json.load(answer) if t["type"] == "page")["webSocketDebuggerUrl"])
        except (OSError, IndexError, StopIteration):
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.2)
