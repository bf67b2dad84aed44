"""The pages in a real browser: what it complains of, what axe finds, and what people do with a mouse or a keyboard."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.sql.helpers import ALICE, a_call, call_id, connect, record
from vital_tracking.web.pages.frame import NAVIGATION

RUN = f"runs/{quote('run 1/x', safe='')}"
PAGES = [
    # Lists of few days, whose many cells axe would look at one by one.
    *(f"{path}?days={3 if path in ('calls', 'runs') else 30}" for _, links in NAVIGATION for _, _, path in links),
    f"users?days=30&user={ALICE}", "explore?days=30&by=user&then=model", "?days=30&user=nobody",
    RUN, f"calls/{call_id(5)}", "sign-in",
]  # fmt: skip


# Colours do not depend on the width: every page is looked at in both themes and at both widths, these in all four ways.
LOOKS: list[tuple[Literal["light", "dark"], int]] = [("light", 1440), ("dark", 390), ("dark", 1440), ("light", 390)]
ALL_LOOKS = (RUN, "explore?days=30", "sign-in")


SIDEWAYS = """
[...document.querySelectorAll('.scroll')]
  .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1)
  .map((one) => one.ariaLabel)
"""


def check(page: Page, path: str) -> None:
    """Whether axe finds nothing, nothing is wider than the screen, and every chart is drawn."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == [], path
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the screen"
    assert page.locator("[data-chart]").count() == page.locator("[data-chart] svg").count(), path
    if page.evaluate("innerWidth") < 400:
        assert page.evaluate(SIDEWAYS) == [], f"{path}: on a phone these tables are seen in part"


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_drawn_and_can_be_read_by_everybody(visit: Visit, path: str) -> None:
    """If this failed, a page would be broken, or somebody could not read it."""
    page = visit(path)
    for scheme, width in LOOKS if path in ALL_LOOKS else LOOKS[:2]:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 1000})
        check(page, f"{path} {scheme} {width}")


def test_the_charts_of_the_overview_are_drawn(visit: Visit) -> None:
    for width in (1440, 390):
        assert visit("?days=30", width=width).locator("[data-chart] svg").count() > 8


def test_without_scripts_there_are_tables(visit: Visit) -> None:
    page = visit("?days=30", javascript=False)
    expect(page.locator("#cost table")).to_be_visible()
    assert page.locator("[data-chart] svg").count() == 0
    page.get_by_role("link", name="90 days").click()
    expect(page.get_by_role("link", name="90 days")).to_have_attribute("aria-current", "true")
    page.locator("[data-theme-button]").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_table_is_sorted_by_what_its_numbers_are(visit: Visit) -> None:
    page = visit("users?days=30")
    head = page.locator("#users th[data-name=total_tokens]")
    cells = page.locator("#users tbody tr")
    for way in ("descending", "ascending"):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", way)
        place = head.evaluate("head => head.cellIndex")
        values = [int(cells.nth(n).locator("td").nth(place).get_attribute("data-v") or 0) for n in range(cells.count())]
        assert values == sorted(values, reverse=way == "descending")


def test_links_lead_from_a_number_to_its_calls_and_back(visit: Visit) -> None:
    page = visit("services?days=30")
    page.get_by_role("link", name="90 days").click()
    expect(page).to_have_url(page.url.partition("?")[0] + "?days=90")
    row = page.locator("#services tbody tr").first
    calls = int((row.locator("td").nth(1).get_attribute("data-v") or "0").replace(",", ""))
    row.locator("td").nth(1).get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("Which calls were made?")
    assert page.locator("#calls tbody tr").count() == min(calls, 100)
    page.go_back()
    expect(page.locator("#services [data-chart]")).to_have_count(0)
    expect(page.locator("h1")).to_have_text("Which service spends it?")


def test_the_theme_is_chosen_by_hand_and_kept(visit: Visit) -> None:
    page = visit("", scheme="light")
    with page.expect_response("**/theme"):
        page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 20, 24)"


def test_refreshing_brings_what_is_new_and_moves_nothing(visit: Visit, site: tuple[str, str]) -> None:
    """If this failed, a page would jump under the hands of whoever reads it, or stay as it was."""
    page = visit("services?days=30")
    shown = page.locator("#days .as-table")
    page.locator("#days summary").click()
    head = page.locator("#services th[data-name=calls]")
    head.get_by_role("button").click()
    page.evaluate("scrollTo(0, 200)")
    place = page.evaluate("scrollY")
    before = page.locator(".figure").first.inner_text()
    with connect(site[1]) as connection:
        now = connection.execute("select now()::text as now").fetchone()
        assert now is not None
        assert record(connection, a_call(50_000, created_at=now["now"], service_type="workflow"))["inserted"] == 1
    with page.expect_response("**/services?days=30"):
        page.evaluate("document.dispatchEvent(new Event('vital:refresh'))")
    expect(page.locator(".figure").first).to_have_text(str(int(before) + 1))
    assert shown.evaluate("part => part.open")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert head.get_by_role("button").evaluate("button => button === document.activeElement")
    assert page.evaluate("scrollY") == place
    assert page.locator("[data-chart]").count() == page.locator("[data-chart] svg").count()


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    """If this failed, whoever uses no mouse could not open a part of the page."""
    page = visit("?days=30")
    wanted = page.evaluate(
        """() => {
            const all = [...document.querySelectorAll('a[href], button, summary, input, [tabindex="0"]')];
            const shown = all.filter((one) => one.checkVisibility() && !one.closest('details:not([open]) > :not(summary)'));
            shown.forEach((one, n) => { one.dataset.n = n; });
            return shown.length;
        }"""
    )
    reached = set()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    for _ in range(wanted + 5):
        reached.add(page.evaluate("document.activeElement.dataset.n"))
        page.keyboard.press("Tab")
    assert reached >= {str(n) for n in range(wanted)}
    page.locator("#cost summary").press("Enter")
    expect(page.locator("#cost table")).to_be_visible()


def test_a_budget_is_kept_by_keyboard_alone_without_scripts(visit: Visit) -> None:
    """If this failed, an admin without a mouse or scripts could not set a limit."""
    page = visit("budgets", javascript=False)
    page.get_by_role("link", name="New budget").press("Enter")
    page.get_by_label("Limit a day").press_sequentially("2.5")
    page.get_by_role("button", name="Preview").press("Enter")
    expect(page.locator("#preview table")).to_be_visible()
    expect(page.get_by_label("Limit a day")).to_have_value("2.5")
    page.get_by_role("button", name="Save").press("Enter")
    expect(page.locator("h1")).to_contain_text("Budget ")
    place = page.url
    page.get_by_label("Whose").press_sequentially(ALICE)
    page.get_by_label("By", exact=True).press_sequentially("1")
    page.get_by_role("button", name="Raise").press("Enter")
    expect(page.locator("#history")).to_contain_text("raise_by")
    looked_at = visit(f"{place.partition('/budgets/')[1].strip('/')}/{place.rpartition('/')[2]}")
    for scheme, width in LOOKS[:2]:
        looked_at.emulate_media(color_scheme=scheme)
        looked_at.set_viewport_size({"width": width, "height": 1000})
        check(looked_at, f"a budget {scheme} {width}")
    page.get_by_role("link", name="Remove").press("Enter")
    page.get_by_role("button", name="Remove it").press("Enter")
    expect(page.locator("h1")).to_have_text("How far are budgets spent?")
    assert page.request.get(place).status == 404
