"""What a visitor does: change an input and see the answer follow; make a mistake and be told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Locator, expect
from visits import Visit

pytestmark = pytest.mark.browser


def slider(visit: Visit, label: str) -> Locator:
    box = visit.page.get_by_test_id("stSlider").filter(has_text=label)
    return box.get_by_role("slider")


def sentence(visit: Visit) -> str:
    return visit.page.get_by_role("heading", level=2).first.inner_text()


def test_the_answer_follows_a_slider(visit: Visit) -> None:
    """Ten times the traffic changes the answer, its cost, and the link in the address bar."""
    before = sentence(visit)
    volume = slider(visit, "Requests a day")
    for _ in range(3):
        volume.press("ArrowRight")
    expect(visit.page.get_by_role("heading", level=2).first).not_to_have_text(
        before, timeout=60_000
    )
    visit.settle()
    assert "traffic.requests_per_day" in visit.page.url
    after = sentence(visit)
    visit.page.reload()
    visit.settle()
    assert sentence(visit) == after, "the link leads back to the same answer"
    assert visit.errors == []


def test_another_page_and_back_leaves_the_answer_as_it_was(visit: Visit) -> None:
    """At a first visit and with a changed input: a page that is left keeps what it was asked."""
    for changed in (False, True):
        if changed:
            slider(visit, "Requests a day").press("ArrowRight")
            visit.page.wait_for_url(re.compile("requests_per_day"))
        visit.settle()
        address, before = visit.page.url, sentence(visit)
        visit.open("Explore")
        visit.open("Recommendation")
        assert sentence(visit) == before
        assert visit.page.url == address


def test_what_was_set_on_a_page_is_there_after_another(visit: Visit) -> None:
    """An open tab, a slider under it, and an address that was typed but not yet used."""
    visit.open("Explore")
    visit.page.get_by_role("tab", name="FLOPs").click()
    tokens = slider(visit, "Input tokens")
    tokens.press("ArrowRight")
    visit.settle()
    said = tokens.get_attribute("aria-valuetext")
    visit.open("Live trial")
    visit.page.get_by_text("Your own endpoints").click()
    address = visit.page.get_by_role("textbox", name="URL, up to /v1").first
    address.fill("http://127.0.0.1:8000/v1")
    address.press("Tab")
    visit.settle()
    visit.open("Explore")
    assert slider(visit, "Input tokens").get_attribute("aria-valuetext") == said
    visit.open("Live trial")
    visit.page.get_by_text("Your own endpoints").click()
    expect(address).to_have_value("http://127.0.0.1:8000/v1")
    assert visit.errors == []


def test_a_key_stays_while_the_rows_are_uploaded(visit: Visit, tmp_path: Path) -> None:
    """What the upload comes to say moves the fields below it; they must not be drawn anew."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "where is my card", "expected": "card_delivery"}\n')
    visit.open("Live trial")
    visit.page.get_by_text("Your own endpoints").click()
    key = visit.page.get_by_role("textbox", name="Key").first
    key.fill("sk-test")
    key.press("Tab")
    visit.settle()
    visit.page.get_by_role("button", name="Upload the rows to send").click()
    visit.page.locator("input[type=file]").set_input_files(rows)
    expect(visit.page.get_by_role("button", name="Remove the rows")).to_be_visible(timeout=20_000)
    expect(visit.page.get_by_text("with what is expected").first).to_be_visible(timeout=20_000)
    expect(key).to_have_value("sk-test")
    assert visit.errors == []


def test_the_recommendation_can_be_downloaded(visit: Visit) -> None:
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download recommendation.json").click()
    answer = json.loads(Path(download.value.path()).read_text())
    assert answer["status"] in ("proven", "conditional", "infeasible")
    assert answer["task"] == "Intent classification"


def test_a_wrong_value_is_told_beside_its_control(visit: Visit) -> None:
    visit.open("Task")
    field = visit.page.get_by_role("spinbutton", name="E2E, ms")
    field.fill("-5")
    field.press("Enter")
    said = visit.page.get_by_text("must be greater than 0")
    expect(said).to_be_visible()
    column = visit.page.get_by_test_id("stColumn").filter(has=field)
    expect(column.last).to_contain_text("must be greater than 0")
    field.fill("90")
    field.press("Enter")
    expect(said).to_have_count(0)
    assert visit.errors == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "not valid YAML"),
        ("a: &a [x]\nb: [" + "*a, " * 40 + "]", "YAML aliases"),
        ("name: x", "'task' is missing"),
        ("", "nothing"),
    ],
    ids=["not YAML", "bomb", "incomplete", "empty"],
)
def test_pasted_text_that_is_no_profile_gets_one_line(visit: Visit, text: str, said: str) -> None:
    visit.open("Task")
    visit.page.get_by_role("button", name="Upload or paste YAML").click()
    visit.page.get_by_role("textbox", name="Or its text").fill(text)
    visit.page.get_by_role("button", name="Use it").click()
    line = visit.page.get_by_test_id("stPopoverBody").get_by_text(said)
    expect(line).to_be_visible()
    assert "\n" not in line.inner_text()
    expect(visit.page.get_by_test_id("stException")).to_have_count(0)


def test_the_downloaded_profile_can_be_uploaded_again(visit: Visit, tmp_path: Path) -> None:
    visit.open("Task")
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download YAML").click()
    profile = yaml.safe_load(Path(download.value.path()).read_text())
    profile["name"] = "Mine"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(profile))
    visit.page.get_by_role("button", name="Upload or paste YAML").click()
    visit.page.locator("input[type=file]").set_input_files(path)
    expect(visit.page.get_by_text("mine.yaml")).to_be_visible(timeout=20_000)
    visit.settle()
    visit.page.get_by_role("button", name="Use it").click()
    expect(visit.page.get_by_role("textbox", name="Name", exact=True)).to_have_value("Mine")
