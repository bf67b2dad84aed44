"""The pages without a browser: every one for every reader, its figures, its parts as CSV, lists, trees and what is refused."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from decimal import Decimal
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.history import READERS, Open, Row, total
from tests.sql.helpers import ALICE, call_id
from vital_tracking.web import view
from vital_tracking.web.pages.frame import NAVIGATION
from vital_tracking.web.pages.usage import SUBJECTS

PAGES = [path for _, links in NAVIGATION for _, _, path in links]
AN_AGENT = "agents?days=30&agent=%3Dcmd%28%29"


def page(browser: TestClient, path: str) -> str:
    answer = browser.get(f"/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! src=)", answer.text)
    return answer.text


def table(browser: TestClient, path: str, part: str, **parameters: Any) -> list[dict[str, str]]:
    answer = browser.get(f"/{path}?{urlencode({'days': 30, **parameters, 'part': part, 'format': 'csv'})}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8"), answer.text
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(answer.text.splitlines()))


def figures(text: str) -> dict[str, str]:
    """The cards of a page: their names, and their figures with all digits."""
    cards = re.findall(
        r'<h2>(?:<a [^>]*>)?([^<]+)(?:</a>)?</h2>\s*<p class="figure"(?: title="([^"]*)")?>([^<]*)', text
    )
    return {name: unescape(exact or shown) for name, exact, shown in cards}


def amount(text: str) -> Decimal:
    return Decimal(text.replace("$", "").replace(",", ""))


def seen_by(reader: str, calls: list[Row]) -> list[Row]:
    return [row for row in calls if READERS[reader].sees(row)]


@pytest.mark.parametrize("reader", READERS)
def test_every_page_shows_each_reader_what_is_theirs(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, a page would be empty for its users, or show what belongs to others."""
    browser = opened(reader)
    seen = seen_by(reader, calls)
    for path in (*PAGES, "admin/usage-analytics", "admin/system/usage-analytics"):
        text = page(browser, f"{path}?days=30")
        assert "<h1>" in text
    overview = page(browser, "?days=30")
    assert ("Nothing is recorded yet" in overview) == (not seen)
    if seen:
        cards = figures(overview)
        assert (int(cards["Calls"]), amount(cards["Cost"])) == (len(seen), total(seen))
        assert int(cards["Active users"]) == len({row["user_id"] for row in seen} - {None})
        assert int(cards["Tokens"]) == sum(row["total_tokens"] for row in seen)
    hidden = {row["user_id"] for row in calls} - {row["user_id"] for row in seen} - {None, READERS[reader].subject}
    text = unescape("".join(page(browser, f"{path}?days=30") for path in ("", "users", "calls", "runs")))
    assert not [user for user in hidden if user in text]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_parts_of_a_page_add_up_to_its_calls(opened: Open, calls: list[Row], reader: str, name: str) -> None:
    """If this failed, the table of a page would say something else than its total."""
    browser = opened(reader)
    need = {"agents": "agent_id", "workflows": "workflow_id", "panels": "panel_id"}.get(name)
    seen = [row for row in seen_by(reader, calls) if need is None or row[need] is not None]
    rows = table(browser, name, name) if seen else []
    assert sum(int(row["calls"]) for row in rows) == len(seen)
    assert sum((amount(row["total_cost"] or "0") for row in rows), Decimal(0)) == total(seen)
    if seen:
        cards = figures(page(browser, f"{name}?days=30"))
        assert (int(cards["Calls"].replace(",", "")), amount(cards["Cost"])) == (len(seen), total(seen))


def test_the_page_of_one_thing_is_about_it_alone(opened: Open, calls: list[Row]) -> None:
    browser = opened("operator")
    mine = [row for row in calls if row["user_id"] == ALICE]
    cards = figures(page(browser, f"users?days=30&user={ALICE}"))
    assert (int(cards["Calls"]), amount(cards["Cost"])) == (len(mine), total(mine))
    services = table(browser, "users", "by-service", user=ALICE)
    assert sum(amount(row["total_cost"] or "0") for row in services) == total(mine)


def test_no_cell_of_a_csv_is_a_formula(opened: Open) -> None:
    """If this failed, a name that somebody chose would run in the accountant's spreadsheet."""
    names = {row["agent_name"] for row in table(opened("operator"), "agents", "agents")}
    assert "'=cmd()" in names
    assert not [name for name in names if name.startswith("=")]
    assert "=cmd()" in page(opened("user"), AN_AGENT)


def listed(text: str) -> list[str]:
    return re.findall(r'href="/calls/([0-9a-f-]{36})"', text)


def all_pages(browser: TestClient, path: str) -> Iterator[str]:
    while True:
        text = page(browser, path)
        yield text
        older = re.search(r'<a class="button" href="/([^"]+)">Older</a>', text)
        if older is None:
            return
        path = unescape(older[1])


@pytest.mark.parametrize("reader", READERS)
def test_the_list_holds_every_call_once(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, calls would be missing between two pages of the list, or stand on both."""
    browser = opened(reader)
    seen = [str(row["id"]) for row in seen_by(reader, calls)]
    assert [one for text in all_pages(browser, "calls?days=30") for one in listed(text)] == seen
    answer = browser.get("/calls?days=30&format=csv&part=all")
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["id"] for row in rows] == seen
    assert sum(Decimal(row["total_cost"] or 0) for row in rows) == total(seen_by(reader, calls))


def test_the_list_is_filtered_and_searched(opened: Open, calls: list[Row]) -> None:
    browser = opened("operator")
    for parameters, wanted in (
        ({"status": "error"}, lambda row: row["status"] == "error"),
        ({"unpriced": "1"}, lambda row: not row["priced"]),
        ({"model": "gpt-4o", "service": "workflow"}, lambda row: (row["model"], row["service_type"]) == ("gpt-4o", "workflow")),
        ({"q": "legal"}, lambda row: row["agent_id"] == "legal"),
        ({"user": "user with a / & <b>"}, lambda row: row["user_id"] == "user with a / & <b>"),
    ):  # fmt: skip
        texts = all_pages(browser, f"calls?{urlencode({'days': 30, **parameters})}")
        assert [one for text in texts for one in listed(text)] == [str(row["id"]) for row in calls if wanted(row)]


@pytest.mark.parametrize("reader", READERS)
def test_a_call_and_a_run_open_for_those_who_may_see_them(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, whoever guesses an id would read another organization's work; or a tree would not add up."""
    browser = opened(reader)
    by_run: dict[str, list[Row]] = {}
    for row in calls:
        by_run.setdefault(row["service_run_id"], []).append(row)
    for run, rows in list(by_run.items())[:12]:
        tree = browser.get(f"/runs/{quote(run, safe='')}")
        one = browser.get(f"/calls/{rows[0]['id']}")
        if not READERS[reader].sees(rows[0]):
            assert (tree.status_code, one.status_code) == (404, 404)
            continue
        leaves = re.findall(r'<div class="node leaf">.*?<span class="n cost">([^<]*)</span>', tree.text, re.DOTALL)
        assert len(leaves) == len(rows)
        assert sum(amount(cost) for cost in leaves if cost != "unpriced") == total(rows)
        assert amount(figures(tree.text)["Cost"]) == total(rows)
        strip = [float(width) for width in re.findall(r'<rect class="s\d" x="[^"]*" width="([^"]*)"', tree.text)]
        assert not strip or (len(strip) > 1 and abs(sum(strip) - 100) < 0.01 and strip == sorted(strip, reverse=True))
        facts = dict(re.findall(r"<t[hd][^>]*>([a-z ]+)</t[hd]>\s*<td[^>]*>([^<]+)</td>", one.text))
        assert facts["prompt tokens"] == f"{rows[0]['prompt_tokens']:,} tokens"
        assert re.fullmatch(r"[\d.]+\s(ms|s)", unescape(facts["response time"]))
        assert rows[0]["total_cost"] is None or amount(facts["total cost"]) == rows[0]["total_cost"]
        assert facts.get("total cost", "$").startswith("$")
    assert browser.get("/runs/no%20such").status_code == 404
    assert browser.get(f"/calls/{call_id(999_999)}").status_code == 404


WRONG = (
    "days=0", "days=91", "days=x", "since=2026-02-02&until=2026-01-01", "timezone=Mars", "grain=year", "user=a%00b",
    f"model={'x' * 513}",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_what_cannot_be_asked_is_a_page_that_says_so(opened: Open, path: str) -> None:
    browser = opened("operator")
    for query in WRONG:
        answer = browser.get(f"/{path}?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "text/html; charset=utf-8"), query
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("calls?after=x", 422), ("runs?after=x", 422), ("runs?model=a", 422), ("calls/not-an-id", 422),
        ("explore?measure=nonsense", 422), ("explore?by=nonsense", 422), ("?part=none&format=csv", 404), ("nowhere", 404),
        ("static/x/../../settings.py", 404), ("static/x/..%2f..%2fsettings.py", 404),
    ],
)  # fmt: skip
def test_a_page_that_does_not_exist_says_so(opened: Open, path: str, status: int) -> None:
    answer = opened("operator").get(f"/{path}", headers={"Accept": "text/html"})
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text


def test_exploring_any_two_things_adds_up(opened: Open, calls: list[Row]) -> None:
    browser = opened("organization admin")
    seen = seen_by("organization admin", calls)
    for by, then in (("service", ""), ("user", "model"), ("week", "agent"), ("hour_of_day", "")):
        text = page(browser, f"explore?days=30&measure=total_cost&by={by}&then={then}")
        part = re.search(r'<section class="part[^"]*" id="([^"]+)"', text)
        assert part is not None
        rows = table(browser, "explore", part[1], measure="total_cost", by=by, then=then)
        assert sum(amount(row["total_cost"] or "0") for row in rows) == total(seen), (by, then)


def test_the_theme_is_kept_and_leads_back_to_us_alone(opened: Open) -> None:
    """If this failed, the form could send people to another site."""
    browser = opened("operator")
    same = {"Sec-Fetch-Site": "same-origin"}
    back = browser.post(
        "/theme", data={"theme": "dark"}, headers={**same, "Referer": "http://testserver/users?days=30"}
    )
    assert (back.status_code, back.headers["location"]) == (303, "/users?days=30")
    assert 'data-theme="dark"' in page(browser, "")
    for evil in ("https://evil.example/x", "http://testserver//evil.example", ""):
        away = browser.post("/theme", data={"theme": "light"}, headers={**same, "Referer": evil})
        assert away.headers["location"] == "/"
    assert browser.post("/theme", data={"theme": "x"}, headers=same).status_code == 422


def links(text: str, path: str) -> dict[tuple[str, ...], str]:
    """The links of a page, one of each kind: of those that differ in nothing but values, the first."""
    kinds: dict[tuple[str, ...], str] = {}
    for found in re.findall(r'href="([^"#]+)"', text):
        href = unescape(found)
        whole = f"/{path.partition('?')[0]}{href}" if href.startswith("?") else href
        place, _, query = whole.partition("?")
        place = re.sub(r"^/(runs|calls)/.+", r"/\1/one", place)
        asked = sorted(pair if pair.startswith("part=") else pair.partition("=")[0] for pair in query.split("&"))
        kinds.setdefault((place, *asked), whole)
    return kinds


@pytest.mark.parametrize(
    "path", [*(f"{path}?days=30" for path in PAGES), AN_AGENT, "explore?days=30&by=kind&then=seat"]
)
def test_every_link_leads_somewhere(opened: Open, path: str) -> None:
    """If this failed, a number would lead to an error and not to the calls behind it."""
    browser = opened("operator")
    for href in links(page(browser, path), path).values():
        assert browser.get(href).status_code == 200, href


def test_links_of_a_page_to_itself_keep_what_was_asked_of_it(opened: Open) -> None:
    """If this failed, the CSV of a report would be another report, and another time would lose the search."""
    browser = opened("operator")
    asked = {"explore": "measure=calls&by=user&then=model", "calls": "q=e&unpriced=1"}
    for name, own in asked.items():
        text = page(browser, f"{name}?days=30&{own}")
        to_itself = [unescape(href) for href in re.findall(r'href="(\?[^"]+)"', text)]
        assert [href for href in to_itself if "days=7" in href]
        assert all(set(own.split("&")) <= set(href[1:].split("&")) for href in to_itself)
    text = page(browser, f"explore?days=30&{asked['explore']}")
    csv_of = next(unescape(href) for href in re.findall(r'href="(\?[^"]+)"', text) if "format=csv" in href)
    assert browser.get(f"/explore{csv_of}").text.splitlines()[0].startswith("user_name,model_name,calls")
    users = next(href for href in re.findall(r'href="(/users[^"]*)"', text))
    assert "measure" not in users


@pytest.mark.parametrize(("path", "part"), [("", "models"), ("", "hours"), ("agents", "agents"), ("users", "days")])
def test_a_csv_asks_for_its_part_alone(opened: Open, monkeypatch: pytest.MonkeyPatch, path: str, part: str) -> None:
    """If this failed, a file of ten lines would take as long as the whole page."""
    browser = opened("operator")
    asked = []
    explore = view.explore
    monkeypatch.setattr(view, "explore", lambda *given, **more: asked.append(given) or explore(*given, **more))
    assert table(browser, path, part)
    assert len(asked) == 1


def test_an_agent_is_called_by_its_name(opened: Open) -> None:
    """If this failed, the page of an agent would be about an id that nobody knows."""
    assert "<h1>Legal counsel (legal)</h1>" in page(opened("operator"), "agents?days=30&agent=legal")


def test_a_report_is_kept_by_name_and_leads_back_to_what_it_asked(opened: Open) -> None:
    """If this failed, a report that somebody built would be gone with the browser's tab, or shown to others."""
    owner, other = opened("operator"), opened("organization admin")
    of_page = {"Sec-Fetch-Site": "same-origin"}
    asked = "days=30&timezone=Europe%2FBerlin&user=user+with+a+%2F+%26+%3Cb%3E&measure=calls&by=model&then=day"
    text = page(owner, f"explore?{asked}")
    query = unescape(re.findall(r'name="query" value="([^"]*)"', text)[0])
    kept = owner.post("/explore/save", data={"name": "by <model>", "query": query}, headers=of_page)
    assert kept.status_code == 303
    for where in ("/explore", kept.headers["location"]):
        link = re.findall(r'<a href="([^"]*)">by &lt;model&gt;</a>', page(owner, where.removeprefix("/")))[0]
    assert sorted(parse_qsl(unescape(link).partition("?")[2])) == sorted(parse_qsl(asked))
    assert "by &lt;model&gt;" not in page(other, "explore")
    for name, query, status in (("", "days=7", 422), ("n", "day", 422), ("n", "next=//a", 422), ("n", "user=%00", 422)):
        assert owner.post("/explore/save", data={"name": name, "query": query}, headers=of_page).status_code == status
    assert owner.post("/explore/save", data={"name": "n", "query": "days=7"}).status_code == 403
    assert "Send a report" not in page(owner, "explore"), "without channels there is nowhere to send it"
    assert owner.post("/explore/forget", data={"name": "by <model>"}, headers=of_page).status_code == 303
    assert "by &lt;model&gt;" not in page(owner, "explore")


def test_the_operator_has_a_report_sent_and_ends_that(opened: Open) -> None:
    """If this failed, whoever has no shell could not have a report sent, or could not see when it is."""
    operator, admin = opened("operator"), opened("organization admin")
    of_page = {"Sec-Fetch-Site": "same-origin"}
    parts = operator.app.state.vital  # type: ignore[attr-defined]
    parts.channels = ("finance",)
    for who in (operator, admin):
        kept = who.post("/explore/save", data={"name": "weekly", "query": "by=model"}, headers=of_page)
        assert kept.status_code == 303
    assert "Send a report" not in page(admin, "explore")
    asked = {"name": "weekly", "channel": "finance", "weekday": "5", "hour": "7", "timezone": "Europe/Berlin"}
    assert admin.post("/explore/schedule", data=asked, headers=of_page).status_code == 403
    for wrong, status in (
        ({"name": "another"}, 404),
        ({"channel": "nowhere"}, 422),
        ({"hour": "24"}, 422),
        ({"every": "year"}, 422),
        ({"timezone": "Mars"}, 422),
        ({"timezone": "Factory"}, 422),
    ):
        assert operator.post("/explore/schedule", data={**asked, **wrong}, headers=of_page).status_code == status, wrong
    assert "Fridays" not in page(operator, "explore").partition("Send a report")[0]
    assert operator.post("/explore/schedule", data=asked, headers=of_page).status_code == 303
    assert "sent Fridays at 07:00 (Europe/Berlin) to finance" in page(operator, "explore")
    assert operator.post("/explore/schedule", data={**asked, "every": "never"}, headers=of_page).status_code == 303
    assert "sent Fridays" not in page(operator, "explore")
    for who in (operator, admin):
        assert who.post("/explore/forget", data={"name": "weekly"}, headers=of_page).status_code == 303
    parts.channels = ()
