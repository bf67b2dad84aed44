"""Whether all is well, for each reader: the checks of the installation, what concerns a user, and the metrics for monitoring."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from tests.integration.web.conftest import Make, client
from tests.integration.web.history import READERS, Open, Row
from tests.integration.web.test_pages import figures, page, seen_by, table


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_is_told_what_concerns_them(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, a user would see the insides of the installation, or an operator would not learn what is broken."""
    browser = opened(reader)
    answer = browser.get("/api/v1/status/checks")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    found: list[dict[str, Any]] = answer.json()
    states = [check["state"] for check in found]
    assert states == sorted(states, key=("fail", "warn", "ok").index)
    said = " ".join(check["what"] for check in found)
    for inside in ("PostgreSQL", "store:", "spool", "partitions", "sums of"):
        assert (inside in said) == (reader == "operator"), inside
    seen = seen_by(reader, calls)
    unpriced = sum(row["total_cost"] is None for row in seen)
    assert (f"{unpriced} unpriced call" in said) == bool(unpriced)
    if reader == "stranger":
        assert "you belong to no organization" in said
        assert "no call is recorded that you may see" in said
    if reader == "organization admin":
        assert "you are admin of acme" in said

    text = page(browser, "status")
    cards = figures(text)
    assert [int(cards[name]) for name in ("Fail", "Look at", "Fine")] == [
        states.count(state) for state in ("fail", "warn", "ok")
    ]
    assert "<h1>Is all well?</h1>" in page(browser, "admin/usage-analytics/test")
    assert len(table(browser, "status", "checks")) == len(found)


@pytest.mark.parametrize("reader", READERS)
def test_the_export_of_old_links_is_the_csv_of_the_calls(opened: Open, calls: list[Row], reader: str) -> None:
    browser = opened(reader)
    led = browser.get("/admin/usage-analytics/export?days=30&status=error")
    assert led.status_code == 303
    rows = list(csv.DictReader(browser.get(led.headers["location"]).text.splitlines()))
    assert {row["id"] for row in rows} == {str(row["id"]) for row in seen_by(reader, calls) if row["status"] == "error"}


@pytest.mark.parametrize("path", ["status", "api/v1/status/checks", "admin/usage-analytics/export"])
def test_nobody_who_is_not_signed_in_is_told_how_it_is(make: Make, path: str) -> None:
    assert client(make()).get(f"/{path}").status_code == 401
