"""A headless Chromium without a driver: started by hand, spoken to over its DevTools protocol (JSON on a WebSocket).

It starts with an empty profile and its background traffic switched off; it is to open pages of this machine only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE = 45.0  # seconds in which it must have started, or answered

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--remote-debugging-port=0"),
)


def find_chromium() -> str | None:
    """The program that SEMCALL_TEST_CHROMIUM names, else the first Chromium or Chrome on the path, or None."""
    return os.environ.get("SEMCALL_TEST_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


def version(program: str) -> str:
    """Its name and version as it says them."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=PATIENCE).stdout
    return said.strip()


class Page:
    """The one page of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    async def open(self, url: str) -> None:
        """Go to `url` and wait until it has loaded."""
        await self._ask("Page.navigate", url=url)
        await self.run("new Promise(done => document.readyState == 'complete' ? done() : onload = () => done())")

    async def run(self, script: str) -> Any:
        """The value of an expression, awaited where it is a promise. AssertionError with what it throws."""
        said = await self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def screenshot(self) -> bytes:
        """What the page looks like now, as PNG."""
        return base64.b64decode((await self._ask("Page.captureScreenshot", format="png"))["data"])

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(PATIENCE):
            while (said := await self._socket.receive_json()).get("id") != number:
                pass
        assert "error" not in said, said["error"]
        result: dict[str, Any] = said["result"]
        return result


@contextlib.asynccontextmanager
async def browsing(program: str, profile: Path, *flags: str) -> AsyncIterator[Page]:
    """A browser with one empty page of 800x600. `profile`: an empty folder."""
    process = await asyncio.create_subprocess_exec(
        *(program, *_FLAGS, "--window-size=800,600", f"--user-data-dir={profile}", *flags, "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(PATIENCE):
                address = (await _address(process)).replace("ws:", "http:").split("/devtools")[0]
                async with session.get(f"{address}/json/list") as reply:
                    pages = [target for target in await reply.json() if target["type"] == "page"]
            reading = asyncio.ensure_future(_swallow(process))
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=2**26) as socket:
                yield Page(socket)
            reading.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    """Where it listens for DevTools."""
    assert process.stderr is not None
    said = ""
    while (match := re.search(r"DevTools listening on (ws://\S+)", said)) is None:
        line = await process.stderr.readline()
        assert line, f"Chromium ended:\n{said}"
        said += line.decode(errors="replace")
    return match[1]


async def _swallow(process: asyncio.subprocess.Process) -> None:
    """What it says later, so that it is never held up."""
    assert process.stderr is not None
    while await process.stderr.read(65536):
        pass
