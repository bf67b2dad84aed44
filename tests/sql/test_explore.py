"""Exploring usage: whatever is asked comes to what the calls that one may see add up to, from sums and from calls alike."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.errors import InvalidParameterValue

from tests.sql.helpers import ADMIN, ALICE, Connection, Row, acting_as, call, record
from tests.sql.usage_questions import (
    READERS,
    SINCE,
    UNTIL,
    a_question,
    assert_answered,
    calls_at_random,
    instant,
    times_of,
)


@pytest.fixture
def history(db: Connection) -> list[Row]:
    """Three hundred calls of two weeks, and who administers them."""
    record(db, *calls_at_random(random.Random(7), 300))
    db.execute("insert into organization_members values ('acme', %s, 'admin'), ('acme', %s, 'member')", [ADMIN, ALICE])
    return db.execute("select * from token_usage_logs").fetchall()


def explore(connection: Connection, claims: dict[str, str] | None, **asked: Any) -> Row:
    """Ask as somebody."""
    asked = {"since": SINCE, "until": UNTIL, **asked}
    if "filters" in asked:
        asked["filters"] = json.dumps(asked["filters"])
    if claims is None:
        with acting_as(connection, "service_role"):
            return dict(call(connection, "usage_explore_v1", **asked))
    with acting_as(connection, "authenticated", claims):
        return dict(call(connection, "usage_explore_v1", **asked))


@pytest.mark.parametrize("reader", READERS)
def test_every_answer_is_what_the_calls_add_up_to(db: Connection, history: list[Row], reader: str) -> None:
    chance = random.Random(reader)
    claims, may_see = READERS[reader]
    sources = set()
    for _ in range(60):
        question = a_question(chance, history)
        answer = explore(db, claims, **question)
        sources.add(answer["source"])
        assert_answered(answer, question, [row for row in history if may_see(row)])
    if reader in ("the service role", "an admin of acme"):
        assert {"calls", "hourly_totals", "daily_users"} <= sources
    else:
        assert sources == {"calls"}


def test_the_smallest_sums_that_hold_it_are_read(db: Connection, history: list[Row]) -> None:
    def source(*dimensions: str, **asked: Any) -> str:
        return str(explore(db, None, dimensions=list(dimensions), **asked)["source"])

    assert source() == "daily_totals"
    assert source("day", "service") == "daily_totals"
    assert source("hour_of_day", "weekday") == "hourly_totals"
    assert source("day", timezone="Europe/Berlin") == "hourly_totals"
    assert source("day", timezone="Asia/Kolkata") == "calls"
    assert source("user") == "daily_users"
    assert source("model", filters={"agent": "cardio"}) == "daily_agents"
    assert source("kind", measures=["calls", "active_users"]) == "daily_users"
    assert source("kind", "model") == "daily_agents"
    assert source("endpoint") == source("workflow", "step") == source("panel", "seat") == "daily_parts"
    assert source("session") == "calls"
    assert source("service", since=SINCE + timedelta(minutes=1)) == "calls"


def test_what_is_left_out_at_the_top_is_added_up_as_others(db: Connection, history: list[Row]) -> None:
    everything = explore(db, None, dimensions=["model"])
    shown = explore(db, None, dimensions=["model"], top=1)

    assert shown["total"] == everything["total"]
    assert [row.get("others", False) for row in shown["rows"]].count(True) == 1
    assert [row["model"] for row in shown["rows"] if not row.get("others")] == [everything["rows"][0]["model"]]
    assert sum(row["calls"] for row in shown["rows"]) == 300
    by_day = explore(db, None, dimensions=["day", "model"], top=1)
    assert [row["day"] for row in by_day["rows"]] == sorted(row["day"] for row in by_day["rows"])
    assert sum(Decimal(row["total_cost"]) for row in by_day["rows"]) == Decimal(everything["total"]["total_cost"])


def test_rows_are_limited_and_the_total_is_not(db: Connection, history: list[Row]) -> None:
    answer = explore(db, None, dimensions=["day", "model"], max_rows=2)

    assert len(answer["rows"]) == 2
    assert answer["groups"] > 2
    assert answer["total"]["calls"] == 300
    every = explore(db, None, dimensions=["session", "model"])
    dearest = explore(db, None, dimensions=["session", "model"], max_rows=2)
    assert (dearest["total"], dearest["groups"]) == (every["total"], len(every["rows"]))
    assert dearest["rows"] == every["rows"][:2]
    none = explore(db, None, dimensions=["run"], filters={"service": "nothing"})
    assert (none["rows"], none["groups"], none["total"]["calls"]) == ([], 0, 0)


def test_agents_have_their_newest_name(db: Connection, history: list[Row]) -> None:
    newest = max((row for row in history if row["agent_id"] == "cardio"), key=lambda row: row["created_at"])

    for asked in ({}, {"filters": {"session": ["*", None]}}):
        answer = explore(db, None, dimensions=["agent"], **asked)
        assert answer["names"]["agent"]["cardio"] == newest["agent_name"]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
@pytest.mark.parametrize("reader", READERS)
def test_a_report_tells_the_course_of_each_row(db: Connection, history: list[Row], reader: str, zone: str) -> None:
    """The days of a row would not add up to it, or an agent would have the name that another organization gave it."""
    claims, may_see = READERS[reader]
    times = times_of(ZoneInfo(zone))
    for grain, by_calls in (("day", {}), ("week", {}), ("hour", {}), ("day", {"calls": {"search": "cardio"}})):
        answer = explore(
            db, claims, dimensions=["user", "agent"], grain=grain, timezone=zone, ascending=True, order_by="calls",
            filters={"any": {"panel": "*", "step": "*"}, **by_calls},
        )  # fmt: skip
        first, last = (datetime.fromisoformat(answer[name]).astimezone(ZoneInfo(zone)) for name in ("since", "until"))
        assert (first.minute, last.minute, first <= SINCE, last >= UNTIL) == (0, 0, True, True)
        seen = [
            row for row in history
            if may_see(row) and (row["panel_id"] or row["workflow_step"]) and (not by_calls or row["agent_id"] == "cardio")
        ]  # fmt: skip
        assert answer["total"]["calls"] == len(seen)
        assert [row["calls"] for row in answer["rows"]] == sorted(row["calls"] for row in answer["rows"])
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in seen:
            groups[row["user_id"], row["agent_id"]].append(row)
        assert len(answer["rows"]) == len(groups)
        for shown in answer["rows"]:
            calls = groups[shown["user"], shown["agent"]]
            course: dict[str, Decimal] = defaultdict(Decimal)
            for one in calls:
                course[times[grain](one["created_at"])] += one["total_cost"] or 0
            told = {instant(at) if grain == "hour" else at: Decimal(cost) for at, cost in shown["days"]}
            assert told == course
            days = sorted(times["day"](one["created_at"]) for one in calls)
            assert (shown["first_day"], shown["last_day"]) == (days[0], days[-1])
            assert shown["services"] == len({one["service_type"] for one in calls} - {None})
            assert shown["agent_name"] == max(calls, key=lambda one: one["created_at"])["agent_name"]


def test_percentiles_are_those_of_the_calls_in_both_ways(db: Connection, history: list[Row]) -> None:
    measures = ["calls", "average_latency_ms", "p50_latency_ms", "p95_latency_ms"]
    from_sums = explore(db, None, dimensions=["provider"], measures=measures)
    from_calls = explore(db, None, dimensions=["provider", "session"], measures=measures)

    assert (from_sums["source"], from_calls["source"]) == ("daily_agents", "calls")
    assert from_calls["total"] == from_sums["total"]
    latencies = sorted(row["latency_ms"] for row in history if row["latency_ms"] is not None)
    median = latencies[len(latencies) // 2]
    assert from_sums["total"]["p50_latency_ms"] == pytest.approx(median, rel=0.06)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"dimensions": ["planet"]}, "no dimension 'planet'"),
        ({"dimensions": [None]}, "no dimension NULL"),
        ({"dimensions": ["day", "day"]}, "at most six different"),
        ({"dimensions": ["day", "user", "model", "agent", "tier", "role", "step"]}, "at most six different"),
        ({"grain": "decade"}, "no grain 'decade'"),
        ({"grain": "day", "top": 3}, "neither active users nor others"),
        ({"filters": {"any": {"planet": "*"}}}, "no dimension 'planet'"),
        ({"filters": {"calls": {"planet": "x"}}}, "no filter 'planet'"),
        ({"filters": {"day": "2026-03-21"}}, "no dimension 'day'"),
        ({"filters": ["x"]}, "object of values"),
        ({"measures": ["latency_histogram"]}, "no measure 'latency_histogram'"),
        ({"order_by": "beauty"}, "no measure 'beauty'"),
        ({"timezone": "CET"}, "no time zone 'CET'"),
        ({"timezone": "Mars/Olympus"}, "no time zone"),
        ({"since": UNTIL, "until": SINCE}, "begins before it ends"),
        ({"since": None}, "begins before it ends"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(db: Connection, asked: Row, told: str) -> None:
    with pytest.raises(InvalidParameterValue) as refused, db.transaction():
        explore(db, None, **asked)

    assert told in str(refused.value)
    assert refused.value.diag.message_hint


def test_texts_of_filters_and_dimensions_are_texts(db: Connection, history: list[Row]) -> None:
    for bad in ("x'; drop table token_usage_logs; --", "%s", "$1", '"', "\\", "o'model"):
        answer = explore(
            db, None, dimensions=[f"metadata.{bad}"], filters={"model": bad, f"metadata.{bad}": [bad, None]}
        )
        assert answer["total"]["calls"] == (sum(row["model"] == bad for row in history))
    with pytest.raises(psycopg.errors.InvalidParameterValue), db.transaction():
        explore(db, None, dimensions=["model; drop table token_usage_logs"])
