"""A headless Chromium for tests, driven over its DevTools protocol with tornado's WebSocket client."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from tornado.websocket import WebSocketClientConnection, websocket_connect

T = TypeVar("T")
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"),
)


def chromium() -> str | None:
    """The browser's command, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


async def _connected(address: str) -> WebSocketClientConnection:
    return await websocket_connect(address, max_message_size=100 << 20)


class Browser:
    """One page of a browser of its own."""

    def __init__(self, size: tuple[int, int] = (1440, 900)) -> None:
        self.events: list[dict[str, Any]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._loop = asyncio.new_event_loop()
        words = [str(chromium()), *FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={self._folder.name}"]
        self._process = subprocess.Popen(
            [*words, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._count = 0
        self._page = self._run(_connected(self._address()))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def _address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            found = re.search(r"ws://127\.0\.0\.1:(\d+)/", line)
            if found:
                with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/json", timeout=20) as answer:
                    return str(
                        next(page for page in json.load(answer) if page["type"] == "page")["webSocketDebuggerUrl"]
                    )
        raise RuntimeError("chromium ended before it listened")

    def _run(self, work: Awaitable[T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, 60))

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; events that come meanwhile are kept."""
        return self._run(self._exchanged(method, parameters))

    async def _exchanged(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        await self._page.write_message(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(await self._page.read_message() or "{}")
            if message.get("id") == self._count:
                return dict(message.get("result", {}))
            self.events.append(message)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.command("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """Value of a JavaScript expression."""
        answer = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return answer.get("result", {}).get("value")

    def text(self, identity: str) -> str:
        """Text of an element."""
        return str(self.value(f"document.getElementById('{identity}').textContent"))

    def wait(self, script: str, seconds: float = 45.0) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({script})"):
            assert time.monotonic() < end, f"never came true: {script}; {self.complaints()}"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Keys one after the other, as fast as a person who knows them."""
        for key in keys:
            typed = {"text": key} if len(key) == 1 else {}
            self.command("Input.dispatchKeyEvent", type="keyDown", key=key, **typed)
            self.command("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, path: Path) -> None:
        """A screenshot."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """What the page's console has to complain of, exceptions and refused content among it."""
        told = [
            event["params"]
            for event in self.events
            if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]
        return [json.dumps(item) for item in told]

    def hosts(self) -> set[str]:
        """Hosts that anything was asked of."""
        asked = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return {match[1] for url in asked if (match := re.match(r"https?://([^/]+)", url))}

    def close(self) -> None:
        """End the browser."""
        self._run(self._closed())
        self._process.terminate()
        self._process.wait(20)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._loop.close()
        self._folder.cleanup()

    async def _closed(self) -> None:
        self._page.close()
        await self._page.read_message()
