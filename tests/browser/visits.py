"""A visitor of the app: where they are, and what went wrong or left the machine meanwhile."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page, expect

IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'


@dataclass
class Visit:
    """One visitor on one page."""

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
        """Wait until no script runs and no search is under way, and none starts after a moment."""
        busy = self.page.get_by_text("full search running").or_(
            self.page.get_by_text("Simulating:", exact=False)
        )
        settled = False
        while not settled:
            self.page.wait_for_selector(IDLE, timeout=60_000)
            expect(busy).to_have_count(0, timeout=120_000)
            self.page.wait_for_selector(IDLE, timeout=60_000)
            self.page.wait_for_timeout(700)
            settled = self.page.locator(IDLE).count() > 0 and busy.count() == 0

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
