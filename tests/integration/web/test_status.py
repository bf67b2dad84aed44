"""Whether all is well, for each reader: the checks of the installation, what concerns a user, and the metrics for monitoring."""

from __future__ import annotations

import csv
import re
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.web.conftest import MONITORING, Issuer, Make, bearer, client
from tests.integration.web.history import READERS, Open, Row, total
from tests.integration.web.test_pages import figures, page, seen_by, table
from tests.sql.helpers import ALICE, BOB, CAROL
from vital_tracking.queries.metrics import Metric, this_month
from vital_tracking.stores.postgres import PostgresStore


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


@pytest.mark.parametrize("path", ["status", "api/v1/status/checks", "admin/usage-analytics/export", "metrics"])
def test_nobody_who_is_not_signed_in_is_told_how_it_is(make: Make, path: str) -> None:
    assert client(make()).get(f"/{path}").status_code == 401


SAMPLE = re.compile(r'(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (-?\d+(?:\.\d+)?)')


def test_monitoring_is_told_sums_and_no_user(history_url: str, make: Make, issuer: Issuer, calls: list[Row]) -> None:
    """If this failed, an alarm would ring for nothing or stay silent, or whoever runs it would read who asks what."""
    with closing(PostgresStore(history_url)) as store:
        assert this_month(store, datetime.now(UTC).date()).source != "calls"
        browser = client(make(over=store), headers=bearer(MONITORING))
        answer = browser.get("/metrics")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert browser.get("/api/v1/metrics").status_code == 200
        assert browser.get("/api/v1/prices").status_code == 403
        users = client(make(over=store), headers=bearer(issuer.token(sub=READERS["organization admin"].subject)))
        assert users.get("/metrics").status_code == 403
    found: dict[str, list[tuple[str, Decimal]]] = {}
    for line in answer.text.splitlines():
        if not line.startswith("# "):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            found.setdefault(sample[1].removeprefix("vital_tracking_"), []).append(
                (sample[2] or "", Decimal(sample[3]))
            )
    month = datetime.now(UTC).date().replace(day=1)
    mine = [row for row in calls if row["created_at"].astimezone(UTC).date() >= month]
    told = {name: sum(value for _, value in samples) for name, samples in found.items()}
    assert told["calls_total"] == len(mine)
    assert told["cost_usd_total"] == total(mine)
    assert told["tokens_total"] == sum(row["total_tokens"] for row in mine)
    assert told["unpriced_calls_total"] == sum(row["total_cost"] is None for row in mine)
    assert told["failed_calls_total"] == sum(row["status"] == "error" for row in mine)
    assert told["last_call_age_seconds"] > 0
    assert told["days_not_summed_up"] == 0
    assert not [user for user in (ALICE, BOB, CAROL) if user in answer.text]


def test_budgets_are_named_by_number_and_a_model_of_any_name_is_one_label(
    monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    """If this failed, a name with a quote would break all of monitoring, or say other figures than ours."""
    of_budgets = client(make(), headers=bearer(MONITORING)).get("/metrics").text.splitlines()
    used = [line for line in of_budgets if line.startswith("vital_tracking_budget_used_percent{")]
    assert used
    assert not [line for line in used if not SAMPLE.fullmatch(line) or "entity_id" in line or ALICE in line]
    name = 'a"} 1\n# x \\'
    metric = Metric("calls_total", "counter", "Calls.", [({"model": name}, 3)])
    monkeypatch.setattr("vital_tracking.web.metrics.metrics", lambda store: [metric])
    answer = client(make(), headers=bearer(MONITORING)).get("/metrics")
    assert answer.text.splitlines()[2] == 'vital_tracking_calls_total{model="a\\"} 1\\n# x \\\\"} 3'
    assert SAMPLE.fullmatch(answer.text.splitlines()[2])
