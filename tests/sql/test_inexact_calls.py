"""Calls whose cost is not known exactly are found, with the reason, and without reading more than a moment allows."""

from __future__ import annotations

from typing import Any

from tests.sql.helpers import Connection, Row, a_call, an_unpriced_call, call, record

SINCE = "2026-01-15T00:00:00+00:00"
OPENAI: Row = {"provider": "openai", "model": "gpt-4o", "framework": "langchain"}
FREE: Row = {"input_cost": "0", "output_cost": "0", "total_cost": "0"}


def inexact(db: Connection) -> Row:
    return dict(call(db, "inexact_calls_v1", since=SINCE))


def reasons(db: Connection) -> dict[str, tuple[int, str]]:
    """Reasons with how many calls, and their cost."""
    return {row["reason"]: (row["calls"], row["cost"]) for row in inexact(db)["rows"]}


def noted(number: int, *notes: str, **changes: Any) -> Row:
    return a_call(number, **{**OPENAI, "metadata": {"notes": list(notes)}, **changes})


def test_each_reason_is_told_with_its_calls_and_their_cost(db: Connection) -> None:
    """If this failed, an admin would take estimates and missing prices for the bill."""
    record(
        db,
        a_call(1, **OPENAI),
        a_call(2, **OPENAI, usage_estimated=True),
        a_call(3, **OPENAI, usage_estimated=True, calls=3, total_cost="1.000000000000000000001"),
        a_call(4, **OPENAI, usage_estimated=True, status="cancelled"),
        an_unpriced_call(5, **OPENAI, usage_estimated=True, metadata={"notes": ["usage_missing"]}),
        noted(6, "modality_hidden", "unit_unpriced:web_searches", "unit_unpriced:code_executions", "total_unexplained"),
        noted(
            7, "unit_unpriced:web_searches", "passes_hidden", "invalid_token_detail", "unitary", "token_total_missing"
        ),
    )
    assert reasons(db) == {
        "usage_estimated": (4, "1.420000000000000000001"),
        "ended_early": (1, "0.42"),
        "usage_missing": (1, None),
        "unpriced": (1, None),
        "modality_hidden": (1, "0.42"),
        "unit_unpriced:web_searches": (2, "0.84"),
        "unit_unpriced:code_executions": (1, "0.42"),
        "total_unexplained": (1, "0.42"),
        "passes_hidden": (1, "0.42"),
    }
    answer = inexact(db)
    assert (answer["calls"], answer["complete"]) == (9, True)
    assert {name: answer["rows"][0][name] for name in (*OPENAI, "call_type", "newest")} == {
        **OPENAI,
        "call_type": "chat",
        "newest": "2026-01-15T10:00:00+00:00",
    }


def test_models_frameworks_and_kinds_of_calls_are_told_apart_those_with_most_calls_first(db: Connection) -> None:
    """If this failed, nobody would know where to set stream_usage."""
    estimated: Row = {"usage_estimated": True}
    record(
        db,
        a_call(1, **estimated, **OPENAI),
        a_call(2, **estimated, **{**OPENAI, "framework": "langgraph"}, calls=3),
        a_call(3, **estimated, **OPENAI, call_type="embedding", calls=2),
        a_call(4, **estimated, calls=4),
    )
    assert [(row["model"], row["framework"], row["call_type"], row["calls"]) for row in inexact(db)["rows"]] == [
        (None, None, "chat", 4),
        ("gpt-4o", "langgraph", "chat", 3),
        ("gpt-4o", "langchain", "embedding", 2),
        ("gpt-4o", "langchain", "chat", 1),
    ]


def test_what_cost_nothing_or_is_older_is_no_matter(db: Connection) -> None:
    """If this failed, blocked calls and answers from the cache would be reported for ever."""
    estimated: Row = {"usage_estimated": True}
    record(
        db,
        a_call(1, **estimated, status="blocked", **FREE),
        a_call(2, **estimated, cache_hit=True, **FREE),
        a_call(3, **estimated, created_at="2026-01-14T23:59:59.999999+00:00"),
        a_call(4, metadata={"notes": "modality_hidden"}),
    )
    answer = inexact(db)
    assert (answer["rows"], answer["calls"], answer["complete"]) == ([], 1, True)


def test_the_releases_that_priced_calls_are_told(db: Connection) -> None:
    """If this failed, nobody would see that a process prices calls by an old list."""
    record(
        db,
        a_call(1, price_version="genai-prices 0.0.1 openai/gpt-4o"),
        a_call(2, price_version="genai-prices 0.0.2 openai/gpt-4o priority", calls=2),
        a_call(3, price_version="genai-prices 0.0.2 anthropic/claude", created_at="2026-01-16T10:00:00+00:00"),
        a_call(4, price_version="model_prices 7"),
    )
    assert inexact(db)["price_lists"] == [
        {"version": "0.0.2", "calls": 3, "newest": "2026-01-16T10:00:00+00:00"},
        {"version": "0.0.1", "calls": 1, "newest": "2026-01-15T10:00:00+00:00"},
    ]


def test_only_the_newest_calls_are_read_and_the_answer_says_so(db: Connection) -> None:
    """If this failed, the doctor would read a year's calls, or call a part of them the whole."""
    record(db, a_call(1, **OPENAI, usage_estimated=True))
    db.execute(
        "insert into token_usage_logs (id, created_at, priced, usage_estimated)"
        " select (%s || to_char(n, 'FM000000000000'))::uuid, '2026-01-15 12:00Z', false, n = 1"
        " from generate_series(1, 100000) as n",
        ["01890000-0000-7000-9000-"],
    )
    answer = inexact(db)
    assert (answer["complete"], answer["calls"]) == (False, 100_000)
    assert [(row["reason"], row["calls"]) for row in answer["rows"]] == [("unpriced", 100_000), ("usage_estimated", 1)]
    db.execute("update token_usage_logs set created_at = '2026-01-14 12:00Z' where not usage_estimated")
    assert inexact(db)["complete"] is True


def test_what_integrations_hide_and_tiers_without_a_price_are_told(db: Connection) -> None:
    """And no note that says how an exact count was found."""
    record(
        db,
        noted(1, "cache_hidden", "tier_unpriced:priority", "cache_ttl_hidden", "billed_units_hidden"),
        noted(2, "cache_beside_input", "reasoning_beside_output", "cache_ttl_from_request"),
    )
    assert reasons(db).keys() == {"cache_hidden", "tier_unpriced:priority", "cache_ttl_hidden", "billed_units_hidden"}


def test_without_a_time_all_calls_are_looked_at(db: Connection) -> None:
    """If this failed, NULL would read as that all is exact."""
    record(db, noted(1, "modality_hidden"))
    found = dict(call(db, "inexact_calls_v1", since=None))
    assert (found["calls"], found["complete"], [row["reason"] for row in found["rows"]]) == (
        1,
        True,
        ["modality_hidden"],
    )
