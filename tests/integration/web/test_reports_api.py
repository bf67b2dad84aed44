"""The reports of usage over the API: for each reader exactly what the calls that he may see add up to, to the last digit."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.history import READERS, Open, Row, total

BASE = "/api/v1/analytics/usage"
REPORTS = ("overview", "patterns", "by-user", "by-service", "costs", "performance")
FILTERS = {
    "user": "user_id",
    "organization": "organization_id",
    "service": "service_type",
    "agent": "agent_id",
    "model": "model",
    "framework": "framework",
    "status": "status",
}


def get(browser: TestClient, report: str, **parameters: Any) -> Any:
    answer = browser.get(f"{BASE}/{report}?{urlencode(parameters, doseq=True)}")
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)


def by(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def kind(row: Row) -> str:
    return "embeddings" if row["call_type"] == "embedding" else "llm"


@pytest.mark.parametrize("reader", READERS)
def test_each_report_is_what_the_calls_add_up_to(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, a bill would be decided upon by figures that nobody could find in the database."""
    browser = opened(reader)
    seen = [row for row in calls if READERS[reader].sees(row)]
    users = {row["user_id"] for row in seen} - {None}

    overview = get(browser, "overview", days=30)
    assert (overview["total_api_calls"], Decimal(overview["total_cost"])) == (len(seen), total(seen))
    assert overview["by_user_count"] == len(users)
    for groups, key in (("by_service", kind), ("by_service_type", lambda row: row["service_type"])):
        assert {name: (one["calls"], Decimal(one["cost"])) for name, one in overview[groups].items()} == {
            name: (len(rows), total(rows)) for name, rows in by(seen, key).items()
        }

    listed = get(browser, "by-user", days=30)
    assert {one["user_id"]: (one["total_calls"], Decimal(one["total_cost"])) for one in listed} == {
        user: (len(rows), total(rows)) for user, rows in by(seen, lambda row: row["user_id"]).items()
    }
    for one in listed:
        assert sum(part["calls"] for part in one["by_service"].values()) == one["total_calls"]
        assert sum(Decimal(part["cost"]) for part in one["by_service"].values()) == Decimal(one["total_cost"])

    kinds = get(browser, "by-service", days=30)
    assert sum(Decimal(one["total_cost"]) for one in kinds) == total(seen)
    costs = get(browser, "costs", days=30)
    assert Decimal(costs["total_cost"]) == total(seen)
    assert sum(Decimal(amount) for amount in costs["cost_breakdown"].values()) == total(seen)
    assert sum(Decimal(day["cost"]) for day in costs["cost_trends"]) == total(seen)
    assert len(costs["cost_trends"]) == 30

    patterns = get(browser, "patterns", days=30)
    assert sum(day["calls"] for day in patterns["usage_trends"]["daily_calls"]) == len(seen)
    assert sum(Decimal(day["cost"]) for day in patterns["usage_trends"]["daily_costs"]) == total(seen)
    hours = Counter(row["created_at"].astimezone(ZoneInfo("UTC")).hour for row in seen)
    assert {one["hour"]: one["calls"] for one in patterns["peak_hours"]}.items() <= hours.items()

    speed = get(browser, "performance", days=30)
    failed = sum(row["status"] == "error" for row in seen)
    late = sum(row["error_type"] == "APITimeoutError" for row in seen)
    if seen:
        assert float(speed["error_rate"]) == pytest.approx(100 * failed / len(seen), abs=0.001)
        assert float(speed["timeout_rate"]) == pytest.approx(100 * late / len(seen), abs=0.001)
        assert speed["p50_latency_ms"] <= speed["p95_latency_ms"] <= speed["p99_latency_ms"]
    else:
        assert speed["error_rate"] is None


@pytest.mark.parametrize("reader", READERS)
def test_filters_days_and_zones_choose_the_calls_that_they_name(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, a number and the calls behind it would be about different things."""
    browser = opened(reader)
    chance = random.Random(reader)
    first = min(row["created_at"] for row in calls).date()
    for _ in range(25):
        since = first + timedelta(days=chance.randint(0, 20))
        until = since + timedelta(days=chance.randint(0, 9))
        zone = chance.choice(["UTC", "Europe/Berlin", "Asia/Kolkata"])
        filters = {
            name: chance.sample(sorted({row[FILTERS[name]] or "" for row in calls}), k=chance.choice([1, 2]))
            for name in chance.sample(sorted(FILTERS), k=chance.choice([0, 1, 2]))
        }

        def chosen(
            row: Row, since: date = since, until: date = until, zone: str = zone, filters: Any = filters
        ) -> bool:
            day = row["created_at"].astimezone(ZoneInfo(zone)).date()
            return since <= day <= until and all((row[FILTERS[n]] or "") in values for n, values in filters.items())

        seen = [row for row in calls if READERS[reader].sees(row) and chosen(row)]
        overview = get(browser, "overview", since=since, until=until, timezone=zone, **filters)
        assert (overview["total_api_calls"], Decimal(overview["total_cost"])) == (len(seen), total(seen)), filters
        costs = get(browser, "costs", since=since, until=until, timezone=zone, **filters)
        assert {day["date"]: Decimal(day["cost"]) for day in costs["cost_trends"]} == {
            str(since + timedelta(days=n)): total(
                row for row in seen if row["created_at"].astimezone(ZoneInfo(zone)).date() == since + timedelta(days=n)
            )
            for n in range((until - since).days + 1)
        }


WRONG = (
    "days=0", "days=91", "days=-1", "days=x", "days=1e9", "days=7&since=2026-01-01", "since=2026-13-01", "until=yesterday",
    "since=2026-02-02&until=2026-01-01", "since=1990-01-01&until=2026-01-01", "timezone=Mars/Base", "timezone=",
    "timezone=localtime", "timezone=Factory", "timezone=CET",
    "timezone=CET5CEST", f"timezone={'x' * 65}", "grain=year", "grain=", f"user={'x' * 513}", "user=a%00b", "metadata.a%00=b",
    f"metadata.{'k' * 80}=1", "&".join(f"model=m{n}" for n in range(101)),
)  # fmt: skip


@pytest.mark.parametrize("query", WRONG)
def test_what_cannot_be_asked_is_a_problem_that_says_so(opened: Open, query: str) -> None:
    """If this failed, a typing error would show figures of something else, or a stack trace."""
    browser = opened("operator")
    for report in REPORTS:
        answer = browser.get(f"{BASE}/{report}?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), report
        assert {"type", "title", "status"} <= set(answer.json())


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", ""])
def test_the_number_of_users_has_its_limits(opened: Open, limit: str) -> None:
    browser = opened("operator")
    answer = browser.get(f"{BASE}/by-user?limit={limit}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert len(get(browser, "by-user", days=30, limit=2)) == 2


def test_an_answer_that_has_not_changed_is_not_sent_again(opened: Open) -> None:
    """If this failed, every page left open would ask for all its figures each minute."""
    browser = opened("operator")
    first = browser.get(f"{BASE}/by-service?since=2020-01-01&until=2020-01-31")
    assert first.headers["etag"].startswith('W/"')
    assert "private" in first.headers["cache-control"]
    again = browser.get(first.url, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
