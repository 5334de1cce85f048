"""A running app and a real browser, with everything it says and asks for on record."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

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
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'


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


@dataclass
class Visit:
    """One visitor: the page, and what went wrong or left the machine meanwhile."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    @property
    def is_phone(self) -> bool:
        """Whether the screen is narrow, so that the links are in a menu."""
        size = self.page.viewport_size
        return size is not None and size["width"] < 600

    def settle(self) -> None:
        """Wait until no script runs and no search is under way."""
        self.page.wait_for_selector(IDLE, timeout=60_000)
        busy = self.page.get_by_text("full search running").or_(
            self.page.get_by_text("Simulating:", exact=False)
        )
        expect(busy).to_have_count(0, timeout=120_000)
        self.page.wait_for_selector(IDLE, timeout=60_000)
        self.page.wait_for_timeout(700)

    def open(self, screen: str) -> None:
        """Go to a screen by its link, as a visitor does."""
        link = self.page.get_by_role("link", name=screen, exact=True)
        menu = self.page.get_by_test_id("stExpandSidebarButton")
        if self.is_phone and menu.is_visible():
            menu.click()
        link.first.click()
        expect(link.first).to_have_attribute("aria-current", "page", timeout=30_000)
        if self.is_phone:
            self.close_menu()
        self.settle()

    def close_menu(self) -> None:
        """Put the phone's menu away where following a link did not."""
        close = self.page.get_by_test_id("stSidebarCollapseButton").get_by_role("button")
        sidebar = self.page.get_by_test_id("stSidebar")
        if sidebar.get_attribute("data-collapsed") == "false":
            close.click()
        expect(sidebar).to_have_attribute("data-collapsed", "true")

    def shoot(self, name: str) -> None:
        """Keep a picture where ADVISOR_SCREENSHOTS names a folder."""
        folder = os.environ.get("ADVISOR_SCREENSHOTS")
        if not folder:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size
        assert size is not None
        main = self.page.get_by_test_id("stMain")
        height = int(main.evaluate("node => node.scrollHeight"))
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], height)})
        self.page.wait_for_timeout(700)
        self.page.screenshot(path=Path(folder) / f"{name}.png")
        self.page.set_viewport_size(size)


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
