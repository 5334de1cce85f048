"""A running app and a real browser, with everything it says and asks for on record."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, sync_playwright
from visits import Visit

ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
START_S = 60


@pytest.fixture(scope="session")
def app_url() -> Iterator[str]:
    """The address of an app started for these tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert server.poll() is None, "the app ended at once"
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"the app did not start within {START_S} s")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One headless Chromium."""
    if not Path(CHROMIUM).exists():
        pytest.skip("needs Debian's chromium: apt-get install chromium fonts-dejavu-core")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(request: pytest.FixtureRequest, chromium: Browser, app_url: str) -> Iterator[Visit]:
    """A visitor on the first screen; parametrise indirectly with (width, height, colour scheme)."""
    width, height, scheme = getattr(request, "param", (1280, 900, "light"))
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    one = Visit(page, app_url)

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            one.errors.append(message.text)

    def see(address: str) -> None:
        if not address.startswith((app_url, app_url.replace("http", "ws"), "data:", "blob:")):
            one.outside.append(address)

    page.on("console", hear)
    page.on("pageerror", lambda error: one.errors.append(str(error)))
    page.on("request", lambda sent: see(sent.url))
    page.on("websocket", lambda socket_: see(socket_.url))
    page.goto(app_url)
    one.settle()
    yield one
    context.close()
