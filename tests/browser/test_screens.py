"""Every screen in a real browser: nothing breaks, nothing leaves the machine, all can read it."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from visits import Visit

pytestmark = pytest.mark.browser

TABS = {
    "Explore": ["Step time", "Memory fit", "KV cache", "FLOPs", "Attention", "Common claims"],
    "Quality": ["Evidence", "Labels needed"],
    "Calibration": [
        "Scoreboard",
        "Predicted and measured",
        "Where it is bad",
        "Terms of the law",
        "Your rows",
        "Measure here",
    ],
    "Evidence": [
        "Quality",
        "Calibration",
        "Assumptions",
        "Models",
        "Accelerators",
        "GPU prices",
        "Hosted prices",
        "Workloads",
        "Notices",
    ],
}
VISITORS = [
    (width, height, scheme)
    for width, height in ((1280, 900), (390, 844))
    for scheme in ("light", "dark")
]


def unreadable(visit: Visit, where: str) -> list[str]:
    """What axe finds on the page, a line a rule."""
    found = Axe().run(visit.page).response["violations"]
    return [
        f"{where}: {rule['id']} at {[node['html'][:160] for node in rule['nodes'][:3]]}"
        for rule in found
    ]


@pytest.mark.parametrize(
    "visit", VISITORS, indirect=True, ids=[f"{w}-{scheme}" for w, _, scheme in VISITORS]
)
def test_every_screen_is_sound(visit: Visit, request: pytest.FixtureRequest) -> None:
    """No exception, no console error, no request to elsewhere, no accessibility violation."""
    name = request.node.callspec.id
    problems: list[str] = []
    for screen in (
        "Recommendation",
        "Task",
        "Load",
        "Live trial",
        "Explore",
        "Quality",
        "Calibration",
        "Evidence",
    ):
        visit.open(screen)
        for tab in TABS.get(screen, [""]):
            where = f"{screen} {tab} {name}"
            if tab:
                visit.page.get_by_role("tab", name=tab, exact=True).click()
                visit.settle()
            expect(visit.page.get_by_test_id("stException"), where).to_have_count(0)
            visit.shoot(f"{name}-{screen}-{tab}".strip("-").replace(" ", "-").lower())
            problems += unreadable(visit, where)
    assert not problems, "\n".join(problems)
    assert visit.errors == []
    assert visit.outside == []


def test_an_address_opens_a_screen(visit: Visit) -> None:
    """A link to a screen works.

    Streamlit's client first asks for its server below the screen's own path and is told 404 twice,
    which Chromium reports; nothing else may go wrong.
    """
    visit.page.goto(f"{visit.url}/explore")
    expect(visit.page.get_by_role("heading", name="Explore")).to_be_visible(timeout=30_000)
    visit.settle()
    assert [error for error in visit.errors if "404" not in error] == []
    assert len(visit.errors) <= 2
