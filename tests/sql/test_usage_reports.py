"""The reports of the command line: one call and many, empty days, new names, no price, percentiles, whole sums."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
from psycopg.errors import InvalidParameterValue

from tests.sql.helpers import (
    Connection,
    Row,
    a_call,
    an_unpriced_call,
    call,
    record,
)

REPORTS = ("services", "users", "agents", "panels", "workflows", "models", "cache")
SINCE, UNTIL = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"
FREE: Row = {"input_cost": "0", "output_cost": "0", "total_cost": "0"}
BLOCKED: Row = {
    **FREE,
    "potential_cost": "0",
    "status": "blocked",
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "total_tokens": 0,
}

CARDIO: Row = {
    "organization_id": "acme",
    "user_id": "u-1",
    "service_type": "virtual_panel",
    "agent_id": "cardio",
    "agent_name": "Cardiologist",
    "agent_tier": "tier_1",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "panel_id": "board",
    "panel_position": 2,
    "workflow_id": "intake",
    "workflow_step": "triage",
    "workflow_step_name": "Triage",
}
LABELS: dict[str, Row] = {
    "services": {"service_type": "virtual_panel"},
    "users": {"organization_id": "acme", "user_id": "u-1", "services": 1, "last_day": "2026-01-15"},
    "agents": {name: CARDIO[name] for name in ("organization_id", "agent_id", "agent_name", "agent_tier")},
    "panels": {
        name: CARDIO[name] for name in ("organization_id", "panel_id", "panel_position", "agent_id", "agent_name")
    },
    "workflows": {
        name: CARDIO[name] for name in ("organization_id", "workflow_id", "workflow_step", "workflow_step_name")
    },
    "models": {"provider": "openai", "model": "gpt-4o-mini"},
    "cache": {"service_type": "virtual_panel", "provider": "openai", "model": "gpt-4o-mini"},
}
MORE: dict[str, Row] = {
    "models": {"reported_calls": 1, "reported_cost": "0.45", "reported_total_cost": "0.46"},
    "cache": {"prompt_cache_rate": 40},
}
TOLD: Row = {
    "calls": 1,
    "cached_calls": 0,
    "failed_calls": 0,
    "blocked_calls": 0,
    "unpriced_calls": 0,
    "estimated_calls": 0,
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "cache_read_tokens": 40,
    "fees": "0.04",
    "total_cost": "0.46",
    "potential_cost": "0.5",
    "cache_savings": "0.04",
    "timed_out_calls": 0,
    "timeout_rate": 0,
    "tokens_per_dollar": 260.87,
    "hit_rate": 0,
    "success_rate": 100,
    "average_latency_ms": 1000,
}
PERCENTILES = ("p50_latency_ms", "p95_latency_ms", "p99_latency_ms")


def usage(db: Connection, report: str, **arguments: Any) -> Row:
    return dict(call(db, "usage_report_v1", **{"report": report, "since": SINCE, "until": UNTIL, **arguments}))


def query(db: Connection, text: str, *arguments: Any) -> list[Row]:
    return db.execute(text, arguments or None).fetchall()


@pytest.mark.parametrize("organization", [None, "acme"])
def test_one_call_appears_in_every_report(db: Connection, organization: str | None) -> None:
    """If this failed, the command line would show other columns or figures than it says."""
    paid = {"fees": "0.04", "total_cost": "0.46", "potential_cost": "0.50", "reported_cost": "0.45"}
    record(db, a_call(1, **CARDIO, **paid, cache_read_tokens=40, latency_ms=1000.0))
    for report in REPORTS:
        answer = usage(db, report, organization=organization)
        assert (answer["report"], answer["since"], answer["until"], answer["organization"]) == (
            report, SINCE, UNTIL, organization,
        )  # fmt: skip
        assert answer["fresh_at"]
        [row] = answer["rows"]
        assert [row.pop(name) for name in PERCENTILES] == pytest.approx([1000] * 3, rel=0.05), report
        assert [answer["total"].pop(name) for name in PERCENTILES] == pytest.approx([1000] * 3, rel=0.05), report
        assert row == {**LABELS[report], **TOLD, **MORE.get(report, {}), "share": 1, "days": [["2026-01-15", "0.46"]]}
        assert answer["total"] == TOLD


def test_reports_without_calls_are_empty_and_no_error(db: Connection) -> None:
    """If this failed, a fresh installation would divide by zero."""
    record(db, a_call(1, organization_id="other"))
    for report in REPORTS:
        answer = usage(db, report, organization="acme")
        assert (answer["rows"], answer["total"]["calls"], answer["total"]["total_cost"]) == ([], 0, "0")
        rates = ("hit_rate", "success_rate", "timeout_rate", "average_latency_ms", *PERCENTILES)
        assert [answer["total"][name] for name in rates] == [None] * 7


def test_reports_are_of_whole_utc_days(db: Connection) -> None:
    """If this failed, a report would hold half a day, or one too many."""
    for number, day in enumerate(("09T23:59:59.999", "10T00:00", "11T23:59:59.999", "12T00:00"), start=1):
        record(db, a_call(number, **CARDIO, created_at=f"2026-01-{day}Z"))
    db.execute("set local timezone = 'Asia/Kolkata'")
    for since, until in (
        ("2026-01-10T00:00Z", "2026-01-12T00:00Z"),
        ("2026-01-10T13:00Z", "2026-01-11T00:00:00.000001Z"),
        ("2026-01-11T05:29:59+05:30", "2026-01-12T05:30+05:30"),
    ):
        for report in REPORTS:
            answer = usage(db, report, since=since, until=until)
            assert (answer["since"], answer["until"]) == ("2026-01-10T00:00:00+00:00", "2026-01-12T00:00:00+00:00")
            assert answer["total"]["calls"] == 2
            assert answer["rows"][0]["days"] == [["2026-01-10", "0.42"], ["2026-01-11", "0.42"]]
    assert usage(db, "users", since="-infinity", until="infinity")["total"]["calls"] == 4


def test_the_dearest_come_first_and_the_rest_is_in_the_total(db: Connection) -> None:
    """If this failed, a list of ten would hide who spends most, or shares would add up to one without the others."""
    for number in range(1, 6):
        cost = {"input_cost": str(number), "output_cost": "0", "total_cost": str(number), "potential_cost": "6"}
        names = {"user_id": f"u-{number}", "agent_id": f"a-{number}", "model": f"m-{number}", "panel_position": number}
        record(db, a_call(number, **{**CARDIO, **names, "workflow_step": f"s-{number}"}, **cost))
    for organization in (None, "acme"):
        for report in set(REPORTS) - {"services"}:
            answer = usage(db, report, organization=organization, rows=2)
            order = ("1", "2") if report == "cache" else ("5", "4")
            assert tuple(row["total_cost"] for row in answer["rows"]) == order, report
            assert answer["total"]["total_cost"] == "15"
            assert answer["rows"][0]["share"] == pytest.approx(int(order[0]) / 15, abs=1e-6)
            assert usage(db, report, organization=organization, rows=0)["rows"] == []


def a_world(db: Connection) -> None:
    """Calls of everybody and nobody, some without anything but money."""
    chosen = random.Random(5)
    calls = []
    for number in range(200):
        some = {name: value for name, value in CARDIO.items() if chosen.random() < 0.7}
        for name in ("organization_id", "user_id", "agent_id", "workflow_step", "model", "panel_position"):
            if name in some and chosen.random() < 0.5:
                some[name] = 7 if name == "panel_position" else "another"
        make = an_unpriced_call if chosen.random() < 0.1 else a_call
        when = f"2026-01-{chosen.randint(3, 6):02}T{chosen.randint(0, 23):02}:00:00Z"
        calls.append(make(number, **some, created_at=when, calls=chosen.choice((1, 1, 3))))
    assert record(db, *calls)["inserted"] == 200


def test_every_report_adds_up_to_the_bill(db: Connection) -> None:
    """If this failed, two reports of the same days would tell two bills."""
    a_world(db)
    for organization in (None, "acme", "another"):
        bill = query(
            db,
            "select sum(calls) as calls, sum(total_cost) as cost, sum(calls) filter (where not priced) as unpriced,"
            " sum(total_cost) filter (where panel_id is not null) as panels,"
            " sum(total_cost) filter (where coalesce(workflow_id, workflow_step) is not null) as workflows"
            " from token_usage_logs where %s::text is null or organization_id = %s",
            organization,
            organization,
        )[0]
        for report in REPORTS:
            answer = usage(db, report, organization=organization, rows=1000)
            cost = bill.get(report, bill["cost"])
            assert Decimal(answer["total"]["total_cost"]) == cost
            assert sum(Decimal(row["total_cost"]) for row in answer["rows"]) == cost
            assert sum(Decimal(day[1]) for row in answer["rows"] for day in row["days"]) == cost
            for measure in ("calls", "unpriced_calls", "total_tokens"):
                assert sum(row[measure] for row in answer["rows"]) == answer["total"][measure]
            if report not in ("panels", "workflows"):
                assert (answer["total"]["calls"], answer["total"]["unpriced_calls"]) == (
                    bill["calls"],
                    bill["unpriced"],
                )
            assert sum(row["share"] for row in answer["rows"]) == pytest.approx(1, abs=1e-4)


def test_a_renamed_agent_is_one_row_and_another_model_is_two(db: Connection) -> None:
    """If this failed, a new name would split an agent, or merge two models that cost differently."""
    record(
        db,
        a_call(1, **{**CARDIO, "agent_name": "Zoe", "model": "old"}, created_at="2026-01-10T10:00:00Z"),
        a_call(2, **{**CARDIO, "agent_name": "Adam", "model": "new"}, created_at="2026-01-11T10:00:00Z"),
        a_call(3, **{**CARDIO, "agent_name": None, "workflow_step_name": "Sort"}, created_at="2026-01-12T10:00:00Z"),
    )
    for report in ("agents", "panels"):
        [agent] = usage(db, report)["rows"]
        assert (agent["agent_name"], agent["calls"], agent["total_cost"]) == ("Adam", 3, "1.26")
    [step] = usage(db, "workflows", organization="acme")["rows"]
    assert (step["workflow_step_name"], step["calls"]) == ("Sort", 3)
    models = usage(db, "models")
    assert {row["model"] for row in models["rows"]} == {"old", "new", "gpt-4o-mini"}
    assert models["total"]["total_cost"] == "1.26"


def test_unpriced_blocked_and_merged_calls_are_counted_right(db: Connection) -> None:
    """If this failed, an unknown price would read as free, a blocked call as a failure, or merged calls as one."""
    record(db, an_unpriced_call(1, organization_id="unpriced", latency_ms=10.0))
    record(db, a_call(2, organization_id="blocked", **BLOCKED))
    record(db, a_call(3, organization_id="merged", calls=7, status="error"), a_call(4, organization_id="merged"))
    found = {name: usage(db, "services", organization=name)["rows"][0] for name in ("unpriced", "blocked", "merged")}
    assert [found["unpriced"][name] for name in ("calls", "unpriced_calls", "total_cost", "share")] == [1, 1, "0", 0]
    assert [found["blocked"][name] for name in ("failed_calls", "blocked_calls", "success_rate")] == [1, 1, None]
    assert [found["merged"][name] for name in ("calls", "success_rate", "p50_latency_ms")] == [8, 12.5, None]
    rows = {row["organization_id"]: row for row in query(db, "select * from service_performance_metrics")}
    assert [rows["unpriced"][name] for name in ("total_cost", "average_cost", "unpriced_calls")] == [0, None, 1]
    assert [rows["blocked"][name] for name in ("success_rate", "average_cost")] == [None, 0]
    assert [rows["merged"][name] for name in ("calls", "average_latency_ms", "p95_latency_ms")] == [8, None, None]
    assert rows["merged"]["average_cost"] == Decimal("0.105")


def test_deleted_calls_leave_no_rows_in_reports(db: Connection) -> None:
    """If this failed, users and agents of deleted calls would go on being listed, with nothing beside them."""
    record(db, a_call(1, **CARDIO), a_call(2, organization_id="acme", agent_id="other", model="other"))
    db.execute("delete from token_usage_logs where agent_id = 'cardio'")
    for report in REPORTS:
        for organization in (None, "acme"):
            rows = usage(db, report, organization=organization)["rows"]
            assert len(rows) == (0 if report in ("panels", "workflows") else 1), report
    assert [row["agent_id"] for row in query(db, "select * from agent_performance_metrics")] == ["other"]
    assert [row["total_users"] for row in query(db, "select * from system_analytics where date = '2026-01-15'")] == [0]


@pytest.mark.parametrize("size", [1, 2, 10, 1000])
def test_percentiles_are_within_five_percent_of_those_of_the_rows(db: Connection, size: int) -> None:
    """If this failed, "which step is slow" would be answered wrongly."""
    chosen = random.Random(size)
    calls = [
        a_call(
            number,
            **{**CARDIO, "model": chosen.choice("ab")},
            latency_ms=round(chosen.lognormvariate(6, 1.2), 3),
            created_at=f"2026-01-{chosen.randint(1, 28):02}T10:00:00Z",
        )
        for number in range(size)
    ]
    record(db, *calls)
    [exact] = query(
        db,
        "select percentile_cont(array[0.5, 0.95, 0.99]) within group (order by latency_ms) as percentiles,"
        " avg(latency_ms) as average from token_usage_logs",
    )
    for report in REPORTS:
        answer = usage(db, report, organization="acme")
        assert [answer["total"][name] for name in PERCENTILES] == pytest.approx(exact["percentiles"], rel=0.05)
        assert answer["total"]["average_latency_ms"] == pytest.approx(exact["average"], abs=0.01)
    [whole] = query(
        db,
        "select latency_percentiles(sum(latency_histogram), '{0.5,0.95,0.99}') as percentiles,"
        " sum(latency_us) / 1000 / sum(timed_calls) as average from service_performance_metrics",
    )
    assert whole["percentiles"] == pytest.approx(exact["percentiles"], rel=0.05)
    assert float(whole["average"]) == pytest.approx(exact["average"], abs=0.01)


def test_percentiles_are_right_at_both_ends_of_a_histogram(db: Connection) -> None:
    """If this failed, the shortest or the longest latencies would be read from the wrong bucket."""
    found = query(
        db,
        "select latency_percentiles(histogram, '{0,0.5,1}') as told from (values"
        " (null::numeric), (0), (1), (3e4800 + 4), (1e12), (999999999997e1200 + 1e1188)) as h (histogram)",
    )
    bucket = [1.1 ** (n - 100) * 2 / 2.1 for n in range(401)]
    told = [row["told"] for row in found]
    assert told[:2] == [None, None]
    expected = [[bucket[0]] * 3, [bucket[0], bucket[0], bucket[400]], [bucket[1]] * 3, [bucket[99], *[bucket[100]] * 2]]
    for found_row, expected_row in zip(told[2:], expected, strict=True):
        assert found_row == pytest.approx(expected_row)


def test_an_unknown_report_is_refused_with_the_known_ones(db: Connection) -> None:
    """If this failed, a typing error would look like a company that spent nothing."""
    refused: list[Row] = [{"report": "user"}, {"report": None}, {"report": "users", "since": None}]
    for arguments in refused:
        with pytest.raises(InvalidParameterValue):
            usage(db, **arguments)
    for statement in (
        "top_usage('users')",
        "top_usage(null)",
        "top_usage('user', 0)",
        "top_usage('user', max_rows => -1)",
        "get_dashboard_stats('acme', 0)",
        "get_dashboard_stats('acme', -7)",
        "dashboard_summary('acme', 5000)",
    ):
        with pytest.raises(InvalidParameterValue), db.transaction():
            db.execute(f"select {statement}")


def test_reports_keep_every_decimal_of_an_amount(db: Connection) -> None:
    """If this failed, reports would round the bill."""
    huge = "12345678901234.000000000000000001"
    cost = {"input_cost": "0.000000000000000001", "output_cost": "0", "fees": "12345678901234", "total_cost": huge}
    record(db, a_call(1, **CARDIO, **cost, potential_cost="12345678901234.100000000000000001"))
    answer = usage(db, "services")
    assert answer["total"]["total_cost"] == "12345678901234.000000000000000001"
    assert answer["rows"][0]["days"] == [["2026-01-15", "12345678901234.000000000000000001"]]
    assert answer["rows"][0]["cache_savings"] == "0.1"
    assert json.dumps(answer)
