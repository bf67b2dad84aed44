"""The list of calls: its form without JavaScript, filters as chips, and the calls behind hours and weekdays."""

from __future__ import annotations

import re
from datetime import datetime
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

import pytest

from tests.integration.web.history import Open, Row
from tests.integration.web.test_pages import all_pages, listed, page, table
from tests.sql.helpers import ALICE

ZONE = "Asia/Kolkata"


def fields(text: str) -> list[tuple[str, str]]:
    """What the browser sends of the form as it stands: hidden fields, inputs and the chosen options."""
    [form] = re.findall(r'<form method="get" class="ask" role="search">.*?</form>', text, re.DOTALL)
    found = [
        (name, unescape(value))
        for name, value in re.findall(r'<input(?: type="hidden")? name="([^"]+)" value="([^"]*)"', form)
    ]
    for name, options in re.findall(r'<select name="([^"]+)">(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r"<option selected>([^<]*)", options)
        found.append((name, unescape(chosen[1]) if chosen else ""))
    return found


def test_the_form_filters_and_what_it_filters_can_be_taken_away(opened: Open, calls: list[Row]) -> None:
    """If this failed, people would have to write filters into the address, or could not get rid of one."""
    browser = opened("operator")
    text = page(browser, "calls?days=30&workflow=&tier=*&agent=legal&agent=&weekday=1")
    asked = dict(fields(text))
    offered = {"user", "session", "service", "step", "framework", "provider", "model", "message_type", "status"}
    assert {name for name in asked if name.startswith("only.")} == {f"only.{name}" for name in offered}
    assert '<details class="filters">' in text
    sent = [(name, {"only.user": ALICE, "only.status": "ok"}.get(name, value)) for name, value in fields(text)]
    answer = browser.get(f"/calls?{urlencode([*sent, ('q', ''), ('only.model', '')])}")
    assert answer.status_code == 303
    query = parse_qsl(answer.headers["location"].partition("?")[2], keep_blank_values=True)
    assert sorted(query) == sorted(
        [("days", "30"), ("workflow", ""), ("tier", "*"), ("agent", "legal"), ("agent", ""), ("weekday", "1"),
         ("user", ALICE), ("status", "ok")]
    )  # fmt: skip
    text = page(browser, f"calls?days=30&user={ALICE}&q=e")
    assert ("only.user", ALICE) in fields(text)
    assert '<details class="filters" open>' in text
    chips = dict(re.findall(r'<li><span>([^:]+): <b>[^<]*</b></span> <a href="([^"]+)"', text))
    assert set(chips) == {"User", "Search"}
    assert unescape(chips["User"]) == "/calls?days=30&q=e"
    assert unescape(chips["Search"]) == f"/calls?days=30&user={ALICE}"
    mine = [str(row["id"]) for row in calls if row["user_id"] == ALICE and row["status"] == "ok"]
    texts = all_pages(browser, f"calls?days=30&user={ALICE}&status=ok")
    assert [one for text in texts for one in listed(text)] == mine


def begun(row: Row) -> datetime:
    return row["created_at"].astimezone(ZoneInfo(ZONE))  # type: ignore[no-any-return]


@pytest.mark.parametrize("reader", ["operator", "user"])
def test_hours_and_weekdays_lead_to_their_calls(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, a peak would be a number that nobody can look into, or lead to other calls."""
    browser = opened(reader)
    mine = [row for row in calls if reader == "operator" or row["user_id"] == ALICE]
    text = page(browser, f"?days=30&timezone={ZONE}")
    for part, given in (("hours", ("hour_of_day",)), ("week", ("weekday", "hour_of_day"))):
        section = re.search(rf'<section class="part[^"]*" id="{part}".*?</section>', text, re.DOTALL)
        assert section is not None
        links = re.findall(r'<td class="n"[^>]* data-v="(\d+)"[^>]*><a href="/([^"]+)"', section[0])
        counted = {unescape(href): int(number) for number, href in links if number != "0"}
        assert sum(counted.values()) == len(mine)
        href, number = max(counted.items(), key=lambda one: one[1])
        times = {name: int(value) for name, value in parse_qsl(href.partition("?")[2]) if name in given}
        assert set(times) == set(given)
        wanted = [
            str(row["id"]) for row in mine
            if times == {name: {"hour_of_day": begun(row).hour, "weekday": begun(row).isoweekday()}[name] for name in given}
        ]  # fmt: skip
        assert len(wanted) == number
        assert [one for text in all_pages(browser, href) for one in listed(text)] == wanted
        api = browser.get("/api/v1/calls", params={"days": 30, "timezone": ZONE, **times, "limit": 1000}).json()
        assert [row["id"] for row in api] == wanted
    hour = begun(mine[0]).replace(minute=0, second=0, microsecond=0)
    text = page(browser, f"explore?days=30&timezone={ZONE}&grain=hour&by=hour&measure=calls")
    hrefs = [unescape(href) for href in re.findall(r'href="/(calls\?[^"]*hour_of_day=[^"]+)"', text)]
    of_hour = [href for href in hrefs if f"since={hour:%Y-%m-%d}" in href and href.endswith(f"hour_of_day={hour.hour}")]
    assert listed(page(browser, of_hour[0])) == [str(row["id"]) for row in mine if begun(row) >= hour]


@pytest.mark.parametrize(
    "query", ["hour_of_day=24", "weekday=0", "weekday=8", "hour_of_day=-1", "weekday=x", "hour_of_day="]
)
def test_a_time_that_there_is_not_is_refused(opened: Open, query: str) -> None:
    browser = opened("user")
    for path in ("/calls", "/api/v1/calls"):
        assert browser.get(f"{path}?{query}").status_code == 422, path
    parameters: dict[str, Any] = dict(parse_qsl("days=30"))
    assert table(browser, "calls", "calls", **parameters)
