"""The rooms that watch: the forecast, anomalies and duplicates, on pages and over the API, for each reader as SQL has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.conftest import Issuer, Make, browsers, client
from tests.integration.web.history import READERS, Open, Row, total
from tests.integration.web.test_pages import amount, figures, listed, page, seen_by, table
from tests.sql.helpers import ADMIN, ALICE, BOB, CAROL, a_call, connect, record
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore


def get(browser: TestClient, path: str) -> Any:
    answer = browser.get(f"/api/v1/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    return json.loads(answer.text, parse_float=Decimal)


def a_sum(parts: list[Row], name: str) -> Decimal:
    return sum((Decimal(str(part[name])) for part in parts if part[name] != ""), Decimal(0))


@pytest.mark.parametrize("reader", READERS)
def test_the_month_is_that_of_the_calls_that_a_reader_may_see(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, a user's own month would stay empty, or show what others spend."""
    browser = opened(reader)
    found = get(browser, "forecast?days=30")
    ahead = found["forecast"]
    first, today = ahead["starts_at"][:10], ahead["moment"][:10]
    seen = [row for row in seen_by(reader, calls) if first <= str(row["created_at"].date()) <= today]
    assert Decimal(ahead["spent"]) == total(seen)
    assert Decimal(ahead["low"]) <= Decimal(ahead["projected"]) <= Decimal(ahead["high"])
    for parts, column in (("by_service", "service_type"), ("by_organization", "organization_id")):
        of = {part["name"]: Decimal(str(part["spent"])) for part in found[parts]}
        assert {name: spent for name, spent in of.items() if spent} == {
            name: cost
            for name in {row[column] for row in seen}
            if (cost := total(row for row in seen if row[column] == name))
        }
        assert a_sum(found[parts], "projected") == Decimal(ahead["projected"]) or not found[parts]
    assert Decimal(found["projected_monthly_cost"]) == total(seen_by(reader, calls)).quantize(Decimal("0.000001"))
    assert Decimal(found["months"][-1]["cost"]) == total(seen) if seen else True

    text = page(browser, "forecast?days=30")
    cards = figures(text)
    assert amount(cards["This month so far"]) == total(seen)
    assert amount(cards["End of the month"]) >= total(seen)
    assert a_sum(table(browser, "forecast", "days"), "spent") if seen else True
    assert ("stands at" in text, "there is no history" in text) == (True, not seen_by(reader, calls))


def test_the_forecast_of_one_organization_is_for_those_who_may_see_it(opened: Open, calls: list[Row]) -> None:
    for reader in READERS:
        found = get(opened(reader), "forecast?organization=acme")["forecast"]
        seen = [row for row in seen_by(reader, calls) if row["organization_id"] == "acme"]
        month = [row for row in seen if str(row["created_at"])[:10] >= found["starts_at"][:10]]
        assert Decimal(found["spent"]) == total(month), reader


FORECAST_WRONG = ("user=u-1", "organization=a&organization=b", "organization=", "days=0", "days=91", "timezone=Mars")


@pytest.mark.parametrize("query", FORECAST_WRONG)
def test_a_forecast_of_what_cannot_be_forecast_is_a_problem(opened: Open, query: str) -> None:
    answer = opened("operator").get(f"/api/v1/forecast?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["errors"]


YESTERDAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


def _spent(number: int, at: datetime, dollars: str, **changes: Any) -> Row:
    money = {"input_cost": dollars, "output_cost": "0", "total_cost": dollars, "potential_cost": dollars}
    return a_call(number, created_at=at.isoformat(), organization_id="acme", **{**money, **changes})


@pytest.fixture(scope="module")
def spike_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """Four calm weeks of two people, a day on which one of them spends a hundred times as much, and one of failures."""
    postgres_server.create_database("web_spike", template=template_database)
    url = postgres_server.url("web_spike")
    with connect(url) as connection:
        for member in (("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("other", CAROL, "admin")):
            connection.execute("insert into organization_members values (%s, %s, %s)", member)
        calls = []
        for day in range(2, 30):
            at = YESTERDAY - timedelta(days=day - 1)
            calls.append(_spent(day, at, "0.5", user_id=ALICE, agent_id="triage", model="m"))
            calls += [_spent(100 * day + n, at, "0", user_id=BOB, agent_id="close", model="n") for n in range(20)]
        for n in range(10):
            at = YESTERDAY + timedelta(minutes=n)
            same = {"request_hash": "same"}
            calls.append(_spent(5000 + n, at, "5", user_id=ALICE, agent_id="triage", model="m", **same))
        for n in range(20):
            failed = {"status": "error", "error_type": "APIError"}
            calls.append(_spent(6000 + n, YESTERDAY, "0", user_id=BOB, agent_id="close", model="n", **failed))
        assert record(connection, *calls)["inserted"] == len(calls)
    yield url
    postgres_server.drop_database("web_spike")


@pytest.fixture
def spiked(spike_url: str, make: Make, issuer: Issuer) -> Iterator[Open]:
    """The browsers of those who look at it."""
    with closing(PostgresStore(spike_url)) as store:
        yield browsers(store, make, issuer)


FOUND = {
    (subject, name, metric)
    for metric, names in (("cost", (ALICE, "triage", "m")), ("error_rate", (BOB, "close", "n")))
    for subject, name in zip(("user", "agent", "model"), names, strict=True)
}
ALICES = {one for one in FOUND if one[2] == "cost"}


@pytest.mark.parametrize(
    ("reader", "found", "repeated"),
    [
        ("operator", FOUND, 9),
        ("organization admin", FOUND, 9),
        ("user", ALICES, 9),
        ("admin of another", set(), 0),
        ("stranger", set(), 0),
    ],
)
def test_what_stands_out_is_shown_with_its_calls(spiked: Open, reader: str, found: set[Any], repeated: int) -> None:
    """If this failed, a runaway day would be seen on the invoice, or by those whom it does not concern."""
    browser = spiked(reader)
    told = get(browser, "anomalies?days=7")["rows"]
    assert {(row["subject"], row["id"], row["metric"]) for row in told} == found
    for row in told:
        if row["metric"] == "cost":
            assert (row["value"], row["severity"]) == (Decimal(50), "high")
        else:
            assert (row["value"], row["usual"], row["measure"]) == (100, 0, "percent")
    again = get(browser, "duplicates?days=7")
    assert (again["repeated_calls"], again["saved_by_caching"]) == (repeated, 5 * repeated)

    text = page(browser, "anomalies?days=7")
    shown = table(browser, "anomalies", "anomalies", days=7)
    assert {(row["subject"], row["id"]) for row in shown} == {(subject, name) for subject, name, _ in found}
    if not found:
        assert "Nothing out of the ordinary" in text
        return
    links = [unescape(href) for href in re.findall(r'href="(/calls\?[^"]+)"', text)]
    of_errors = next((href for href in links if "status=error" in href), None)
    assert (of_errors is None) == (found == ALICES)
    if of_errors is not None:
        assert len(listed(page(browser, of_errors[1:]))) == 20
    of_alice = next(href for href in links if "agent=triage" in href)
    assert len(listed(page(browser, of_alice[1:]))) == 10
    assert "$45" in text


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", *FORECAST_WRONG])
@pytest.mark.parametrize("path", ["anomalies", "duplicates"])
def test_what_stands_out_cannot_be_asked_for_otherwise(opened: Open, path: str, query: str) -> None:
    answer = opened("operator").get(f"/api/v1/{path}?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("path", ["api/v1/forecast", "api/v1/anomalies", "api/v1/duplicates", "forecast", "anomalies"])
def test_nobody_who_is_not_signed_in_is_told_anything(make: Make, path: str) -> None:
    assert client(make()).get(f"/{path}").status_code == 401
