"""The pages of events and of other costs: for each reader their own, figures that lead to their rows, and nothing made up."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest

from tests.integration.web.conftest import Issuer, Make, browsers
from tests.integration.web.history import READERS, Open, Row
from tests.integration.web.test_pages import amount, figures, page, table
from tests.sql.helpers import ADMIN, ALICE, BOB, CAROL, a_call, connect, record
from tests.sql.platform_rows import a_cost, an_event, send
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore

NOW = datetime.now(UTC)
OWNERS = (("acme", ALICE), ("acme", BOB), ("other", CAROL), (None, ALICE), (None, None))


def events() -> list[Row]:
    """Some of every kind, a day apart."""
    return [
        an_event(
            number,
            organization_id=organization,
            user_id=user,
            occurred_at=(NOW - timedelta(hours=19 * (number // 5), minutes=number)).isoformat(),
            category=("user_behavior", "system_health", "business")[number % 3],
            event_name=("page_view", "http_request", "revenue")[number % 3],
            source=(None, "/reports")[number % 2],
            properties={"status": 503} if number % 3 == 1 else {"page": "<b>&"},
        )
        for number, (organization, user) in enumerate(OWNERS * 24, 1)
    ]


def costs() -> list[Row]:
    """Some with a price, some without."""
    kinds: tuple[Row, ...] = (
        {"cost_type": "storage", "quantity": "12.5", "resource": "bucket"},
        {"cost_type": "search", "quantity": "3"},
        {"cost_type": "compute", "quantity": "2", "service": "render"},
    )
    return [
        a_cost(
            number,
            organization_id=organization,
            user_id=user,
            occurred_at=(NOW - timedelta(hours=19 * (number // 5), minutes=number)).isoformat(),
            **kinds[number % 3],
        )
        for number, (organization, user) in enumerate(OWNERS * 6, 1)
    ]


@pytest.fixture(scope="module")
def pages_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database with events, costs and a call of each."""
    postgres_server.create_database("web_platform_pages", template=template_database)
    with connect(postgres_server.url("web_platform_pages")) as connection:
        for member in (("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("other", CAROL, "admin")):
            connection.execute("insert into organization_members values (%s, %s, %s)", member)
        assert send(connection, "platform_events", *events())["inserted"] == 120
        assert send(connection, "tenant_cost_events", *costs())["inserted"] == 30
        calls = [
            a_call(
                number, organization_id=organization, user_id=user, created_at=(NOW - timedelta(hours=1)).isoformat()
            )
            for number, (organization, user) in enumerate(OWNERS, 1)
        ]
        assert record(connection, *calls)["inserted"] == 5
    yield postgres_server.url("web_platform_pages")
    postgres_server.drop_database("web_platform_pages")


@pytest.fixture(scope="module")
def pages_store(pages_url: str) -> Iterator[PostgresStore]:
    """A store on it."""
    with closing(PostgresStore(pages_url)) as store:
        yield store


@pytest.fixture
def looked(pages_store: PostgresStore, make: Make, issuer: Issuer) -> Open:
    """The browsers of those who look."""
    return browsers(pages_store, make, issuer)


def seen(rows: list[Row], reader: str) -> list[Row]:
    return [row for row in rows if READERS[reader].sees(row)]


def stored_costs(pages_url: str, reader: str) -> list[Row]:
    with connect(pages_url) as connection:
        return seen(connection.execute("select * from tenant_cost_events").fetchall(), reader)


@pytest.mark.parametrize("reader", READERS)
def test_events_are_counted_and_listed_for_those_whom_they_concern(looked: Open, reader: str) -> None:
    """If this failed, a page would show what happens at another tenant, or lose what happened here."""
    browser, mine = looked(reader), seen(events(), reader)
    text = page(browser, "events?days=30")
    cards = figures(text)
    assert int(cards["Events"]) == len(mine)
    assert int(cards["Users"]) == len({row["user_id"] for row in mine} - {None})
    for part, key in (("names", "event_name"), ("users", "user_id"), ("time", None)):
        rows = table(browser, "events", part)
        names = ("user_behavior", "system_health", "business") if key is None else ("events",)
        assert sum(int(row.get(name) or 0) for row in rows for name in names) == len(mine), part
        if key is not None:
            assert len(rows) == len({row[key] for row in mine})
    if mine:
        failed = [row for row in mine if "status" in row["properties"]]
        assert sorted(listed(browser, "events?days=30&failed=1")) == sorted(
            str(row["occurred_at"])[:19] for row in failed
        )
        assert ("By organization" in text) == (len({row["organization_id"] for row in mine}) > 1)
    else:
        assert "No event in this time" in text
    every = list(csv.DictReader(browser.get("/events?days=30&format=csv&part=all").text.splitlines()))
    assert [row["id"] for row in every] == [
        row["id"] for row in sorted(mine, key=lambda row: row["occurred_at"], reverse=True)
    ]


def listed(browser: Any, path: str) -> list[str]:
    """When the rows of the list on all its pages were."""
    found = []
    while True:
        text = page(browser, path)
        part = re.search(r'<section class="part[^"]*" id="list".*?</section>', text, re.DOTALL)
        assert part is not None
        found += re.findall(r'data-v="([0-9T:+.-]{19})[^"]*">[0-9 :-]{19}</td>', part[0])
        older = re.search(r'<a class="button" href="/([^"#]+)#list">Older</a>', text)
        if older is None:
            return found
        path = unescape(older[1])


@pytest.mark.parametrize("name", ["events", "costs"])
def test_every_figure_leads_to_the_rows_behind_it(looked: Open, name: str) -> None:
    """If this failed, whoever follows a number would find other rows than those that it counts."""
    browser = looked("organization admin")
    text = page(browser, f"{name}?days=30")
    followed = 0
    for part in re.findall(r'<section class="part[^"]*" id="(?!list|time)[^"]+".*?</section>', text, re.DOTALL):
        for href, count in re.findall(r'<td class="n"[^>]*><a href="/([^"#]+)#list">([0-9,]+)</a>', part):
            assert len(listed(browser, unescape(href))) == int(count.replace(",", "")), href
            followed += 1
    assert followed > 4
    for href in re.findall(r'<td[^>]* data-v="[0-9-]{10}"><a href="/([^"#]+)#list">', text)[:2]:
        assert listed(browser, unescape(href))


@pytest.mark.parametrize("reader", READERS)
def test_other_costs_add_up_beside_the_calls(looked: Open, pages_url: str, reader: str) -> None:
    """If this failed, the bill would be too high or too low, or be somebody else's."""
    browser, mine = looked(reader), stored_costs(pages_url, reader)
    spent = sum((row["cost_usd"] or Decimal(0) for row in mine), Decimal(0))
    text = page(browser, "costs?days=30")
    cards = figures(text)
    calls = Decimal("0.42") * len(seen([{"organization_id": o, "user_id": u} for o, u in OWNERS], reader))
    assert [amount(cards[name]) for name in ("Other costs", "Calls to models", "Both together")] == [
        spent, calls, spent + calls
    ]  # fmt: skip
    unpriced = sum(not row["priced"] for row in mine)
    assert int(cards["Unpriced"]) == unpriced
    assert ("Without a known price" in text) == bool(unpriced)
    for part in ("types", "services", "organizations", "time"):
        rows = table(browser, "costs", part)
        names = ("storage", "search", "compute") if part == "time" else ("cost_usd",)
        assert sum((amount(row.get(name) or "0") for row in rows for name in names), Decimal(0)) == spent, part
    prices = {row["cost_type"]: row["unit_price"] for row in table(browser, "costs", "prices")}
    may = bool(READERS[reader].administers) or reader == "operator"
    assert prices == (
        {"storage": "0.023", "bandwidth": "0.09", "search": "0.0005", "stt": "0.0012", "tts": "0.0015"} if may else {}
    )
    assert len(listed(browser, "costs?days=30&unpriced=1")) == unpriced


@pytest.mark.parametrize("reader", ["operator", "organization admin", "user", "stranger"])
def test_overview_and_forecast_have_the_whole_bill_apart_and_together(
    looked: Open, pages_url: str, reader: str
) -> None:
    """If this failed, an admin would take the cost of the calls for all that there is to pay."""
    browser, mine = looked(reader), stored_costs(pages_url, reader)
    spent = sum((row["cost_usd"] or Decimal(0) for row in mine), Decimal(0))
    calls = Decimal("0.42") * len(seen([{"organization_id": o, "user_id": u} for o, u in OWNERS], reader))
    text = page(browser, "?days=30")
    cards = figures(text)
    if not mine:
        assert "Nothing is recorded yet" in text
        return
    assert [amount(cards[name]) for name in ("Bill", "Cost of calls", "Other costs")] == [spent + calls, calls, spent]
    kinds = {row["kind"]: row["cost"] for row in table(browser, "", "kinds")}
    assert (sum(amount(cost or "0") for cost in kinds.values()), amount(kinds["llm"])) == (spent + calls, calls)
    assert kinds["compute"] == ""  # it has no price, which is not 0
    days = table(browser, "", "cost")
    assert sum(amount(row["total_cost"]) + amount(row["other_cost"]) for row in days) == spent + calls
    of_calls = figures(page(browser, "?days=30&model=gpt-4o"))
    assert "Bill" not in of_calls
    month = [row for row in mine if row["occurred_at"].date() >= NOW.date().replace(day=1)]
    so_far = sum((row["cost_usd"] or Decimal(0) for row in month), Decimal(0))
    ahead = page(browser, "forecast")
    calls_of_month = calls if (NOW - timedelta(hours=1)).month == NOW.month else Decimal(0)
    assert amount(figures(ahead)["This month so far"]) == so_far + calls_of_month
    if month:
        part = re.search(r'<section class="part[^"]*" id="bill".*?</section>', ahead, re.DOTALL)
        assert part is not None
        told = [amount(one) for one in re.findall(r'title="(\$[0-9.,]+)"', part[0])]  # of calls, others, and both
        assert told[2] == so_far
        assert (told[0] + told[2], told[1] + told[3]) == (told[4], told[5])
        assert told[5] == amount(figures(ahead)["End of the month"])
        days = table(browser, "forecast", "days")
        assert sum(amount(row["other"] or "0") for row in days) == so_far


def test_forms_filter_and_what_is_no_filter_is_said(looked: Open) -> None:
    browser = looked("operator")
    sent = browser.get("/events?days=30&only.category=business&only.user=&only.source=%2Freports&failed=0")
    assert (sent.status_code, sent.headers["location"]) == (
        303,
        "/events?days=30&category=business&source=%2Freports&failed=0",
    )
    text = page(browser, "events?days=30&category=business&source=%2Freports")
    for path, newest in (
        ("events", "Newest event: "),
        ("costs", "Newest other cost: "),
        ("health", "Newest day of any of it: "),
    ):
        assert newest in page(browser, path), path
    assert "Calls to models alone, without other costs." in page(browser, "forecast")
    assert "Category: <b>business</b>" in text
    wanted = [row for row in events() if row["category"] == "business" and row["source"] == "/reports"]
    assert int(figures(text)["Events"]) == len(wanted)
    assert "&lt;b&gt;&amp;" in page(browser, "events?days=30&event=page_view")
    none = page(browser, "events?days=30&source=")
    assert ("From: <b>none</b>" in none, int(figures(none)["Events"])) == (
        True,
        sum(row["source"] is None for row in events()),
    )
    for query in ("events?model=x", "costs?session=x", "events?after=x", "costs?unpriced=x"):
        assert browser.get(f"/{query}").status_code == 422, query
